"""Recipe: all settings that decide what a run computes, frozen, and checked before anything is loaded."""

import math

from pydantic import model_validator

from moco.recipe_base import RecipeBase, diff
from moco.recipe_error import RecipeError, unknown
from moco.recipe_specs import ComputeSpec, DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Spec, View
from moco.schedule import Schedule
from moco.text import plural

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
    def _check_combination(self) -> "Recipe":
        _check_range("optim.lr", self.optim.lr, 0, math.inf)
        _check_range("method.momentum", self.method.momentum, 0, 1)
        for rule in (
            _channels_problem,
            _dictionary_problem,
            _bn_problem,
            _pieces_problem,
            _views_problem,
            _compute_problem,
        ):
            if problem := rule(self):
                raise ValueError(problem)
        return self

    @property
    def groups(self) -> int:
        """Parts of the global mini-batch with their own BN statistics; 1 for sync, and for plain on one rank."""
        return self.method.bn_groups if self.method.bn in ("shuffle", "split") else 1

    @property
    def keys_per_step(self) -> int:
        return self.optim.batch_size * (2 if self.method.symmetric else 1)

    @property
    def candidates(self) -> int:
        """Number of keys that a query is compared with, its own included: K + 1, or N for in-batch keys."""
        return self.optim.batch_size if self.method.size is None else self.method.size + 1

    @property
    def collapse_level(self) -> float:
        """The loss when all keys are equally likely. InfoNCE: ln(K + 1). NCE: h = 1 / (K + 1) for every key."""
        method, level = self.method, math.log(self.candidates)
        if method.loss == "nce":
            k = self.candidates - 1
            level += k * math.log((k + 1) / k)
        return level * (2 if method.symmetric else 1) * (2 * method.temperature if method.scale_loss else 1)


def _channels_problem(recipe: Recipe) -> str | None:
    """Why encoder and views do not fit the channels of the images; None if they do."""
    data, channels = recipe.data, recipe.data.channels
    if recipe.encoder.channels != channels:
        images = "the images are RGB (data.bands is null)" if data.bands is None else f"data.bands has {channels}"
        return f"encoder.channels={recipe.encoder.channels}, and {images}: set encoder.channels={channels}"
    if data.bands is None:
        return None
    if data.shrink is not None or data.decode != "exact":
        return "data.bands needs data.shrink=null and data.decode=exact: bands are read whole"
    if any(view.grey or view.jitter.hue or view.jitter.saturation for view in data.views):
        return (
            "bands have no hue, saturation or grey: with data.bands set grey, jitter.hue and jitter.saturation of "
            "data.views.0 and data.views.1 to 0 (--bands does)"
        )
    return None


def _dictionary_problem(recipe: Recipe) -> str | None:
    """Why key encoder, dictionary and views do not fit together; None if they do."""
    method = recipe.method
    encoders = {"queue": ("momentum",), "batch": ("momentum", "shared", "second"), "bank": ("none",)}[method.dictionary]
    if method.key_encoder not in encoders:
        return (
            f"method.dictionary={method.dictionary} needs method.key_encoder={' or '.join(encoders)} (Fig. 2), got "
            f"{method.key_encoder}"
        )
    if (method.size is None) != (method.dictionary == "batch"):
        return (
            "method.size (K) is required for method.dictionary=queue and bank, and must be null for batch: "
            f"set method.size={'null' if method.dictionary == 'batch' else 65536}, got {method.size}"
        )
    if method.dictionary == "queue" and recipe.keys_per_step > (method.size or 0):
        return (
            f"method.size (K = {method.size}) must hold the {recipe.keys_per_step} keys of one step: set method.size "
            "higher or optim.batch_size lower"
        )
    if recipe.data.groups is not None and method.loss == "nce":
        return "method.loss=nce compares with noise, from which no key is left out: set data.groups=null"
    if method.dictionary == "bank" and method.symmetric:
        return "method.symmetric needs a key for each view, but a memory bank has one for each image: set it to false"
    if method.dictionary != "bank" and len(recipe.data.views) != 2:
        return "data.views expects two views, of the query and of the key. Only a memory bank can do with one"
    if method.dictionary != "bank" and (method.loss == "nce" or method.negatives == "each"):
        return "method.loss=nce and method.negatives=each need a memory bank: set method.dictionary=bank, or neither"
    return None


def _bn_problem(recipe: Recipe) -> str | None:
    """Why the BN groups are not possible; None if they are."""
    batch, groups, bn = recipe.optim.batch_size, recipe.groups, recipe.method.bn
    if batch % groups:
        return f"optim.batch_size ({batch}) must be a multiple of method.bn_groups ({groups}): set one of the two"
    if batch // groups < 2:
        return (
            f"method.bn_groups={groups} leaves {plural(batch // groups, 'image')} in a BN group; BN needs at least 2: "
            "set fewer groups"
        )
    if bn == "shuffle" and groups == 1:
        return (
            "method.bn=shuffle with method.bn_groups=1 does nothing: query and key share their BN statistics, and "
            "the encoder can cheat (Sec. 3.3). Set method.bn_groups=2 or more, or method.bn=plain"
        )
    if bn == "shuffle" and recipe.method.key_encoder == "none":
        return "method.bn=shuffle needs keys of the same step; those of a memory bank are older: set method.bn=split"
    return None


def _pieces_problem(recipe: Recipe) -> str | None:
    """Why the mini-batch cannot be cut into pieces in this way; None if it can."""
    pieces, groups, in_batch = recipe.optim.accumulate, recipe.groups, recipe.method.dictionary == "batch"
    if recipe.optim.cached and not in_batch:
        return (
            "optim.cached needs method.dictionary=batch. With other dictionaries the backward pass runs one BN group "
            "at a time already: set optim.cached=false"
        )
    if pieces > 1 and in_batch and not recipe.optim.cached:
        return (
            f"optim.accumulate={pieces} would compare each query with the keys of its own piece of the mini-batch "
            "only, which is another method (method.dictionary=batch): set optim.cached=true, which takes two passes "
            "and gives the gradient of the whole mini-batch"
        )
    if pieces > 1 and recipe.method.loss == "nce":
        return "method.loss=nce estimates Z from the whole mini-batch at once: set optim.accumulate=1"
    if groups % pieces:
        return (
            f"each piece must have whole BN groups, so that BN sees the same images: optim.accumulate={pieces} "
            f"needs method.bn=split or shuffle and method.bn_groups a multiple of {pieces}, got "
            f"method.bn={recipe.method.bn} with {groups}"
        )
    return None


def _views_problem(recipe: Recipe) -> str | None:
    """Why the further views of an image are not possible; None if they are."""
    data = recipe.data
    name = "data.key_views" if data.key_views > 1 else "data.small_crops" if data.small_crops else None
    if name is None:
        return None
    value = data.key_views if name == "data.key_views" else data.small_crops
    if recipe.method.key_encoder != "momentum" or recipe.optim.cached or recipe.compute.deal_keys:
        return (
            f"{name}={value} needs keys that take no gradient and are made once for all queries: "
            "method.key_encoder=momentum, optim.cached=false and compute.deal_keys=false"
        )
    if data.small_crops and recipe.encoder.name.startswith("vit_") and data.small_size != data.size:
        return (
            f"{recipe.encoder.name} takes images of one size: set data.small_size={data.size}, that of the other "
            "views, or another encoder.name"
        )
    return None


def _compute_problem(recipe: Recipe) -> str | None:
    """Why the settings of `compute` are not possible; None if they are."""
    method = recipe.method
    if recipe.compute.deal_keys and (method.bn != "shuffle" or method.key_encoder != "momentum" or method.symmetric):
        return (
            "compute.deal_keys is about Shuffling BN of a momentum encoder's keys, where each view is either the query "
            "or the key: it needs method.bn=shuffle, method.key_encoder=momentum and method.symmetric=false"
        )
    if recipe.compute.deal_keys and recipe.data.decode == "scaled" and recipe.data.shrink is None:
        return (
            "compute.deal_keys makes the two views of an image on different ranks, and data.decode=scaled decodes it "
            "at a scale that fits both: set data.decode=exact"
        )
    if recipe.compute.cuda_graphs and not recipe.compute.compile:
        return "compute.cuda_graphs needs compiled encoders: set compute.compile=true as well"
    return None


def _check_range(name: str, schedule: Schedule, low: float, high: float) -> None:
    """Raise ValueError if a value of the schedule is outside of [low, high]."""
    for field in ("value", "start", "stop"):
        value = getattr(schedule, field, low)
        if not low <= value <= high:
            raise ValueError(f"{name}.{field} must be {'0 or more' if high > 1 else 'in [0, 1]'}, got {value}")
