"""Recipe: everything that decides what a run computes, frozen and checked before anything is loaded.

A recipe derives from another by `but(name, {"dotted.field": value})`; the command line's `--set` is the same call.
Batch sizes and BN groups are global (over all ranks); durations say their unit.
"""

import difflib
import json
import math
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moco.schedule import Constant, Schedule


class RecipeError(ValueError):
    """A recipe that cannot run: says what was expected, what came, and what to do."""


Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Spread = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """A frozen group of settings; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderSpec(Part):
    """f_q: what maps an image to an embedding. f_k is its copy."""

    name: str = "resnet50"  # resnet10 ... resnet152, resnext50_32x8d; torchvision/NAME; timm/NAME; custom
    stem: Literal["7x7/2+pool", "3x3", "3x3/2"] = "7x7/2+pool"  # own ResNets only: ImageNet's; for small images
    width: Annotated[float, Field(gt=0)] = 1.0  # own ResNets only: multiplies the channels of every layer
    dilate_last: bool = False  # own ResNets only: the last stage has stride 1 and dilation 2
    head: Literal["linear", "mlp"] = "linear"  # g: feature -> embedding
    dim: Positive = 128  # C


class MethodSpec(Part):
    """How keys are made, kept and compared."""

    key_encoder: Literal["momentum"] = "momentum"
    dictionary: Literal["queue"] = "queue"
    size: Positive = 65536  # K
    temperature: Annotated[float, Field(gt=0)] = 0.07  # tau
    momentum: Schedule = Constant(0.999)  # m
    symmetric: bool = False  # each view in turn is the query; the losses add up
    shuffle_bn: bool = True  # Sec. 3.3
    bn_groups: Positive = 8  # in how many parts of the global mini-batch BN takes its statistics

    @property
    def collapse_level(self) -> float:
        """The loss when all keys are equally likely: ln(K + 1) for each direction."""
        return math.log(self.size + 1) * (2 if self.symmetric else 1)


class OptimSpec(Part):
    """The optimizer of f_q, and how long it runs."""

    optimizer: Literal["sgd"] = "sgd"
    lr: Schedule = Constant(0.03)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    batch_size: Positive = 256  # N, over all ranks
    epochs: Positive = 200


class Jitter(Part):
    """Colour jitter: four changes in random order, each by a random amount (torchvision's ColorJitter)."""

    brightness: Annotated[float, Field(ge=0)] = 0.4
    contrast: Annotated[float, Field(ge=0)] = 0.4
    saturation: Annotated[float, Field(ge=0)] = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    p: Probability = 0.8


class View(Part):
    """The random distribution of views of an image. In what order: see `grey_first`."""

    crop_area: tuple[float, float] = (0.2, 1.0)  # of the image's area; above 1 pads with black
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    jitter: Jitter = Jitter()
    grey: Probability = 0.2
    grey_first: bool = False  # crop, grey, jitter, blur, solarize, flip (MoCo v1) or crop, jitter, grey, ... (v2, v3)
    blur: Probability = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # [pixels], Pillow's GaussianBlur radius
    solarize: Probability = 0.0  # values of 128 and more are inverted
    flip: Probability = 0.5

    @model_validator(mode="after")
    def _ranges(self) -> "View":
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got ({low}, {high})")
        return self


class DataSpec(Part):
    """What a view of an image is."""

    size: Positive = 224  # [pixels] of a view, square
    views: tuple[View, View] = (View(), View())  # of the query, of the key
    eval_resize: Positive = 256  # [pixels] of the shorter side, before the central crop of `size`, in evaluation
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: tuple[Spread, Spread, Spread] = (0.229, 0.224, 0.225)


class ComputeSpec(Part):
    """How the arithmetic is done, as far as it changes the numbers."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of autocast; loss, EMA and queue stay float32
    channels_last: bool = True
    compile: bool = False  # torch.compile of both encoders
    threads: Positive | None = None  # of torch on a CPU: sums depend on it in their last bits; None: torch's choice


class Recipe(Part):
    """A run is a function of its recipe and its images."""

    name: str
    source: str = ""  # where the numbers are from
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    encoder: EncoderSpec = EncoderSpec()
    method: MethodSpec = MethodSpec()
    optim: OptimSpec = OptimSpec()
    data: DataSpec = DataSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        _between("optim.lr", self.optim.lr, 0, math.inf)
        _between("method.momentum", self.method.momentum, 0, 1)
        groups, batch, key_batch = self.method.bn_groups, self.optim.batch_size, self.keys_per_step
        if batch % groups:
            raise ValueError(
                f"optim.batch_size ({batch}) must be a multiple of method.bn_groups ({groups}): set one of the two"
            )
        if batch // groups < 2:
            raise ValueError(
                f"method.bn_groups={groups} leaves {batch // groups} image a BN group; BN needs at least 2: set fewer"
            )
        if self.method.shuffle_bn and groups == 1:
            raise ValueError(
                "method.shuffle_bn with method.bn_groups=1 does nothing: query and key share their BN statistics, and "
                "the encoder can cheat (Sec. 3.3). Set method.bn_groups=2 or more, or method.shuffle_bn=false"
            )
        if key_batch > self.method.size:
            raise ValueError(
                f"method.size (K = {self.method.size}) must hold the {key_batch} keys of one step: set method.size "
                "higher or optim.batch_size lower"
            )
        return self

    @property
    def keys_per_step(self) -> int:
        return self.optim.batch_size * (2 if self.method.symmetric else 1)

    def but(
        self, name: str | None = None, changes: dict[str, Any] | None = None, /, *, source: str | None = None
    ) -> "Recipe":
        """This recipe with other values at some dotted fields: `but("long", {"optim.epochs": 800})`.

        Raises:
            RecipeError: an unknown field (the nearest right one is named), a wrong type, or parts that do not fit.
        """
        tree = self.model_dump()
        tree["name"] = name or self.name
        tree["source"] = self.source if source is None else source
        for dotted, value in (changes or {}).items():
            try:
                tree = _replaced(tree, dotted.split("."), _plain(value))
            except (LookupError, ValueError):
                raise RecipeError(unknown("setting", dotted, _all_names(self))) from None
        return _validated(tree)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """The recipe that `to_json` wrote. Raises RecipeError."""
        try:
            return _validated(json.loads(text))
        except json.JSONDecodeError as error:
            raise RecipeError(f"a recipe must be JSON: {error}") from None

    def fields(self) -> dict[str, Any]:
        """Every setting by its dotted name, in order."""
        return _leaves(self)


def diff(a: Recipe, b: Recipe) -> list[str]:
    """One line for each setting that differs: `optim.epochs: 200 -> 20`."""
    left, right = a.fields(), b.fields()
    names = dict.fromkeys([*left, *right])
    missing = object()
    return [
        f"{name}: {left.get(name, '-')} -> {right.get(name, '-')}"
        for name in names
        if left.get(name, missing) != right.get(name, missing)
    ]


def _between(name: str, schedule: Schedule, low: float, high: float) -> None:
    """The values that a schedule goes between must make sense. Raises ValueError."""
    for field in ("value", "start", "stop"):
        value = getattr(schedule, field, low)
        if not low <= value <= high:
            raise ValueError(f"{name}.{field} must be {'0 or more' if high > 1 else 'in [0, 1]'}, got {value}")


def _plain(value: Any) -> Any:
    """`value` as what model_dump would have made of it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return dict(vars(value)) if hasattr(value, "__pydantic_fields__") else value


def _children(node: Any) -> dict[str, Any]:
    if isinstance(node, BaseModel):
        return {name: getattr(node, name) for name in type(node).model_fields}
    if hasattr(node, "__pydantic_fields__"):
        return {name: getattr(node, name) for name in node.__pydantic_fields__}
    if isinstance(node, tuple) and any(isinstance(item, BaseModel) for item in node):
        return {str(i): item for i, item in enumerate(node)}
    return {}


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, child in _children(node).items():
        found |= _leaves(child, f"{prefix}{name}.") if _children(child) else {prefix + name: child}
    return found


def _all_names(node: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, child in _children(node).items():
        names += [prefix + name, *_all_names(child, f"{prefix}{name}.")]
    return names


def _replaced(tree: Any, path: list[str], value: Any) -> Any:
    """The dumped recipe with another leaf or branch at `path`. Raises LookupError or ValueError where there is none."""
    if not path:
        return value
    name, *rest = path
    if isinstance(tree, dict):
        branches = cast("dict[str, Any]", tree)
        return branches | {name: _replaced(branches[name], rest, value)}
    if isinstance(tree, tuple) and 0 <= int(name) < len(items := cast("tuple[Any, ...]", tree)):
        return (*items[: int(name)], _replaced(items[int(name)], rest, value), *items[int(name) + 1 :])
    raise LookupError(name)


def unknown(what: str, name: str, known: list[str]) -> str:
    """The message for a name that is not there: with the nearest ones, or else all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    tail = name.rsplit(".", 1)[-1]
    near = near or [one for one in known if one.rsplit(".", 1)[-1] == tail][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known)}"
    return f"unknown {what} '{name}': {hint}"


def _validated(tree: Any) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines: list[str] = []
        for problem in error.errors():
            where = ".".join(str(step) for step in problem["loc"] if step not in ("constant", "steps", "cosine"))
            if problem["type"] == "extra_forbidden":
                lines.append(unknown("setting", where, _all_names(Recipe(name="default"))))
            elif where in ("optim.lr", "method.momentum"):
                lines.append(
                    f"{where} must be a number or a schedule (a kind with its fields), got {problem['input']!r}"
                )
            elif where:
                lines.append(f"{where}: {problem['msg'].lower()}, got {problem['input']!r}")
            else:
                lines.append(problem["msg"].removeprefix("Value error, "))
        raise RecipeError("; ".join(lines)) from None
