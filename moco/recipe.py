"""Recipe: everything that decides what a run computes, frozen and checked before anything is loaded."""

import math

from pydantic import model_validator

from moco.recipe_base import RecipeBase, diff
from moco.recipe_error import RecipeError, unknown
from moco.recipe_specs import ComputeSpec, DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Spec, View
from moco.schedule import Schedule

__all__ = [
    "ComputeSpec",
    "DataSpec",
    "EncoderSpec",
    "Jitter",
    "MethodSpec",
    "OptimSpec",
    "Recipe",
    "RecipeError",
    "Spec",
    "View",
    "diff",
    "unknown",
]  # fmt: skip


class Recipe(RecipeBase):
    """A run is a function of its recipe and its images."""

    encoder: EncoderSpec = EncoderSpec()
    method: MethodSpec = MethodSpec()
    optim: OptimSpec = OptimSpec()
    data: DataSpec = DataSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        _between("optim.lr", self.optim.lr, 0, math.inf)
        _between("method.momentum", self.method.momentum, 0, 1)
        for rule in (_mechanism_fits, _bn_fits, _pieces_fit, _compute_fits):
            if trouble := rule(self):
                raise ValueError(trouble)
        return self

    @property
    def groups(self) -> int:
        """In how many parts of the global mini-batch BN takes its statistics; sync, and plain on one rank: one."""
        return self.method.bn_groups if self.method.bn in ("shuffle", "split") else 1

    @property
    def keys_per_step(self) -> int:
        return self.optim.batch_size * (2 if self.method.symmetric else 1)

    @property
    def candidates(self) -> int:
        """Keys among which a query looks for its own: K + 1, or the mini-batch's N."""
        return self.optim.batch_size if self.method.size is None else self.method.size + 1

    @property
    def collapse_level(self) -> float:
        """The loss when all keys are equally likely. InfoNCE: ln(K + 1). NCE: h = 1 / (K + 1) for every key."""
        method, level = self.method, math.log(self.candidates)
        if method.loss == "nce":
            k = self.candidates - 1
            level += k * math.log((k + 1) / k)
        return level * (2 if method.symmetric else 1) * (2 * method.temperature if method.scale_loss else 1)


def _mechanism_fits(recipe: Recipe) -> str | None:
    """What is wrong with who makes the keys and where they are kept, or None."""
    method = recipe.method
    makers = {"queue": ("momentum",), "batch": ("momentum", "shared", "second"), "bank": ("none",)}[method.dictionary]
    if method.key_encoder not in makers:
        return (
            f"method.dictionary={method.dictionary} goes with method.key_encoder={' or '.join(makers)} (Fig. 2), got "
            f"{method.key_encoder}"
        )
    if (method.size is None) != (method.dictionary == "batch"):
        return (
            "method.size (K) is for a queue or a bank, and a dictionary of the mini-batch's keys has none: "
            f"set method.size={'null' if method.dictionary == 'batch' else 65536}, got {method.size}"
        )
    if method.dictionary == "queue" and recipe.keys_per_step > (method.size or 0):
        return (
            f"method.size (K = {method.size}) must hold the {recipe.keys_per_step} keys of one step: set method.size "
            "higher or optim.batch_size lower"
        )
    if method.dictionary == "bank" and method.symmetric:
        return "method.symmetric needs a key of each view, and a memory bank has one of each image: set it to false"
    if method.dictionary != "bank" and len(recipe.data.views) != 2:
        return "data.views expects two, of the query and of the key; with a memory bank alone, one is enough"
    if method.dictionary != "bank" and (method.loss == "nce" or method.negatives == "each"):
        return (
            "method.loss=nce and method.negatives=each are of the memory bank: set method.dictionary=bank, or neither"
        )
    return None


def _bn_fits(recipe: Recipe) -> str | None:
    """What is wrong with the BN groups, or None."""
    batch, groups, bn = recipe.optim.batch_size, recipe.groups, recipe.method.bn
    if batch % groups:
        return f"optim.batch_size ({batch}) must be a multiple of method.bn_groups ({groups}): set one of the two"
    if batch // groups < 2:
        return f"method.bn_groups={groups} leaves {batch // groups} image a BN group; BN needs at least 2: set fewer"
    if bn == "shuffle" and groups == 1:
        return (
            "method.bn=shuffle with method.bn_groups=1 does nothing: query and key share their BN statistics, and "
            "the encoder can cheat (Sec. 3.3). Set method.bn_groups=2 or more, or method.bn=plain"
        )
    if bn == "shuffle" and recipe.method.key_encoder == "none":
        return "method.bn=shuffle is of keys made with their queries, and a memory bank's are not: set method.bn=split"
    return None


def _pieces_fit(recipe: Recipe) -> str | None:
    """What is wrong with a mini-batch that goes through in pieces, or None."""
    pieces, groups, in_batch = recipe.optim.accumulate, recipe.groups, recipe.method.dictionary == "batch"
    if recipe.optim.cached and not in_batch:
        return "optim.cached is for method.dictionary=batch: with others each BN group goes backward by itself already"
    if pieces > 1 and in_batch and not recipe.optim.cached:
        return (
            f"optim.accumulate={pieces} would compare each query with the keys of its own piece of the mini-batch "
            "alone, which is another method (method.dictionary=batch): set optim.cached=true, which takes two passes "
            "and has the gradient of the whole mini-batch"
        )
    if pieces > 1 and recipe.method.loss == "nce":
        return "optim.accumulate: NCE's Z is the mini-batch's, which must be in one piece: set optim.accumulate=1"
    if groups % pieces:
        return (
            f"a piece must be a whole number of BN groups, or BN would see other images: optim.accumulate={pieces} "
            f"expects method.bn=split or shuffle with method.bn_groups a multiple of {pieces}, got "
            f"method.bn={recipe.method.bn} with {groups}"
        )
    return None


def _compute_fits(recipe: Recipe) -> str | None:
    """What is wrong with how the arithmetic is done, or None."""
    if recipe.compute.cuda_graphs and not recipe.compute.compile:
        return "compute.cuda_graphs is of encoders that torch compiles: set compute.compile=true as well"
    return None


def _between(name: str, schedule: Schedule, low: float, high: float) -> None:
    """The values that a schedule goes between must make sense. Raises ValueError."""
    for field in ("value", "start", "stop"):
        value = getattr(schedule, field, low)
        if not low <= value <= high:
            raise ValueError(f"{name}.{field} must be {'0 or more' if high > 1 else 'in [0, 1]'}, got {value}")
