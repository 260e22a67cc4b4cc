"""The settings of a recipe: their names, types, defaults and meaning.

Batch sizes and BN groups are global (over all ranks); durations say their unit.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from moco.recipe_error import shorten
from moco.schedule import Constant, Schedule

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Side = Annotated[int, Field(ge=1, le=16384)]  # [pixels]
Wide = Annotated[int, Field(ge=1, le=2**20)]  # the length of a vector
Threads = Annotated[int, Field(ge=1, le=4096)]
Spread = Annotated[float, Field(gt=0)]
Channels = Annotated[int, Field(ge=1, le=64)]


def _check_band_range(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"a band's range must be (low, high) with low < high, got {bounds}")
    return bounds


BandRange = Annotated[tuple[float, float], AfterValidator(_check_band_range)]


def _check_rule(rule: str) -> str:
    try:
        re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"data.groups must be 'image', 'folder' or a regular expression, got {shorten(rule)}: {error}"
        ) from None
    return rule


def _int_if_whole(value: float) -> int | float:
    """A whole number as an int, so that it is written without a decimal point."""
    return int(value) if value == int(value) else value


Epochs = Annotated[float, Field(gt=0, le=1e6), AfterValidator(_int_if_whole), PlainSerializer(_int_if_whole)]


class Spec(BaseModel):
    """A frozen group of settings; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderSpec(Spec):
    """f_q, which maps an image to an embedding."""

    name: str = (
        "resnet50"  # resnet10 ... resnet152, resnext50_32x8d; vit_small ...; torchvision/NAME; timm/NAME; custom
    )
    stem: Literal["7x7/2+pool", "3x3", "3x3/2"] = "7x7/2+pool"  # own ResNets only; 3x3 and 3x3/2: for small images
    width: Annotated[float, Field(gt=0, le=64)] = 1.0  # own ResNets only: multiplies the channels of every layer
    channels: Channels = 3  # of the images; others than 3 with data.bands
    dilate_last: bool = False  # own ResNets only: the last stage has stride 1 and dilation 2
    zero_init: bool = False  # own ResNets only: the last BN of each residual block starts at 0
    patch: Side | None = None  # [pixels] own ViTs only: the side of a patch; None: the network's (16; vit_huge 14)
    position: Literal["sincos", "learned", "none"] = "sincos"  # own ViTs only; learned is trained, sincos is fixed
    freeze_patch: bool = False  # own ViTs only: the patch projection stays random (MoCo v3, Sec. 4.2)
    head: Literal["linear", "mlp", "projector2", "projector3"] = "linear"  # g: feature -> embedding
    hidden: Wide = 4096  # width of the hidden layers of projector and predictor
    head_bn: bool = True  # BN in a projector and in the predictor
    dim: Wide = 128  # C


class MethodSpec(Spec):
    """How keys are computed, stored and compared with the queries."""

    key_encoder: Literal["momentum", "shared", "second", "none"] = (
        "momentum"  # f_k; second: a second network, trained like f_q
    )
    dictionary: Literal["queue", "batch", "bank"] = "queue"  # Fig. 2 (c), (a), (b)
    size: Positive | None = 65536  # K: keys in the queue, or negatives drawn from the bank; None: with dictionary batch
    negatives: Literal["shared", "each"] = "shared"  # bank only: one draw for the mini-batch, or one for each query
    bank_momentum: Annotated[float, Field(ge=0, lt=1)] = (
        0.5  # bank only: momentum of each image's key, updated once an epoch
    )
    loss: Literal["infonce", "nce"] = "infonce"
    scale_loss: bool = False  # multiply the loss by 2 tau (MoCo v3, Sec. 5)
    temperature: Annotated[float, Field(gt=0)] = 0.07  # tau
    momentum: Schedule = Constant(0.999)  # m
    symmetric: bool = False  # each view is the query once; the two losses are added
    predictor: Literal["none", "mlp", "mlp_bn"] = "none"  # after f_q only; mlp_bn ends in a BN without weights
    bn: Literal["shuffle", "split", "sync", "plain"] = "shuffle"  # Sec. 3.3; plain: over the images of each rank
    bn_groups: Positive = 8  # shuffle and split: parts of the global mini-batch, each with its own BN statistics

    @model_validator(mode="before")
    @classmethod
    def _groups_beside_bn(cls, given: Any) -> Any:
        """`bn="split:8"` is short for `bn="split", bn_groups=8`."""
        if not isinstance(given, dict) or not isinstance(bn := given.get("bn"), str) or ":" not in bn:
            return given
        name, _, groups = bn.partition(":")
        return given | {"bn": name, "bn_groups": groups}


class OptimSpec(Spec):
    """The optimizer of f_q, and how long it runs."""

    optimizer: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: Schedule = Constant(0.03)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd and lars
    trust: Annotated[float, Field(gt=0)] = 0.001  # lars only: the trust coefficient
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    batch_size: Positive = 256  # N, over all ranks
    epochs: Epochs = 200  # may be a fraction, for data sets that are used about once
    accumulate: Positive = 1  # gradient accumulation: a rank's mini-batch goes through f_q in so many pieces
    cached: bool = (
        False  # dictionary batch only: gradient caching, two passes over the pieces, the gradient of the whole batch
    )

    def total_steps(self, num_images: int) -> int:
        """The length of a run in steps: whole mini-batches only."""
        return max(1, round(self.epochs * (num_images // self.batch_size)))


class Jitter(Spec):
    """Colour jitter: four changes in random order, each by a random amount (torchvision's ColorJitter)."""

    brightness: Annotated[float, Field(ge=0)] = 0.4
    contrast: Annotated[float, Field(ge=0)] = 0.4
    saturation: Annotated[float, Field(ge=0)] = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    p: Probability = 0.8
    bands: Annotated[float, Field(ge=0)] = 0.0  # data.bands only: brightness of each band on its own, with the others


def _check_interval(name: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not 0 < low <= high:
        raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got ({low}, {high})")


class View(Spec):
    """The random augmentations that make a view of an image. For their order see `grey_first`."""

    crop_area: tuple[float, float] = (0.2, 1.0)  # of the image's area; above 1 pads with black
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    jitter: Jitter = Jitter()
    grey: Probability = 0.2
    grey_first: bool = False  # crop, grey, jitter, blur, solarize, flip (MoCo v1) or crop, jitter, grey, ... (v2, v3)
    blur: Probability = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # [pixels], Pillow's GaussianBlur radius
    solarize: Probability = 0.0  # values of 128 and more are inverted
    flip: Probability = 0.5
    flip_vertical: Probability = 0.0  # for images without an up and a down
    rotate90: Probability = 0.0  # by one, two or three quarter turns, each as likely as the others

    @model_validator(mode="after")
    def _check_ranges(self) -> "View":
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            _check_interval(name, getattr(self, name))
        return self


class DataSpec(Spec):
    """Views: their size, augmentations and normalization."""

    size: Side = 224  # [pixels] of a view, square
    views: Annotated[tuple[View, ...], Field(min_length=1, max_length=2)] = (View(), View())  # of the query, of the key
    key_views: Annotated[int, Field(ge=1, le=8)] = 1  # for each image: its key is their mean
    small_crops: Annotated[int, Field(ge=0, le=16)] = 0  # further queries of each image, with smaller crops
    small_area: tuple[float, float] = (0.05, 0.2)  # their crop_area; all else as the query's view
    small_size: Side = 96  # [pixels] of a small crop, square
    groups: Annotated[str, AfterValidator(_check_rule)] | None = None  # images of a group are no negatives
    # of each other. image: the other keys of the same image; folder; or a regular expression on the name (group_images)
    shrink: Side | None = None  # [pixels] larger images are shrunk to this shorter side once, and kept in memory
    decode: Literal["exact", "scaled"] = "exact"  # scaled: JPEG files at 1/2, 1/4, 1/8 if all crops keep enough pixels
    order: Literal["uniform", "shards"] = "uniform"  # of an epoch; shards: read mostly one after the other
    eval_resize: Side = 256  # [pixels] of the shorter side, before the central crop of `size`, in evaluation
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of RGB in [0, 1], or of each band
    std: tuple[Spread, ...] = (0.229, 0.224, 0.225)
    bands: Annotated[tuple[BandRange, ...], Field(min_length=1, max_length=64)] | None = None  # all bands of each image
    # in full depth, with the values that become 0 and 1; None: 8-bit RGB

    @property
    def channels(self) -> int:
        """Of a view."""
        return 3 if self.bands is None else len(self.bands)

    @property
    def all_views(self) -> list[tuple[View, int]]:
        """Each view of an image and its size [pixels]: query, key, further views of the key, small crops."""
        small = self.views[0].model_copy(update={"crop_area": self.small_area})
        further = [(self.views[-1], self.size)] * (self.key_views - 1)
        return [*((view, self.size) for view in self.views), *further, *[(small, self.small_size)] * self.small_crops]

    @property
    def pair(self) -> "DataSpec":
        """The same with two views of an image, one of the query and one of the key."""
        return self.model_copy(update={"views": (self.views[0], self.views[-1]), "key_views": 1, "small_crops": 0})

    @property
    def view_bytes(self) -> int:
        """Memory that a view takes before it is normalized."""
        return self.channels * self.size**2 * (1 if self.bands is None else 4)

    @model_validator(mode="after")
    def _check_values(self) -> "DataSpec":
        _check_interval("data.small_area", self.small_area)
        for name in ("mean", "std"):
            if (count := len(getattr(self, name))) != self.channels:
                raise ValueError(f"data.{name} must have a value for each of {self.channels} channels, got {count}")
        return self


class ComputeSpec(Spec):
    """How the numbers are computed. Each setting can change results in their last bits."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # autocast's; loss, momentum update and queue stay in float32
    channels_last: bool = True
    compile: bool = False  # torch.compile of both encoders
    cuda_graphs: bool = False  # torch.compile's mode reduce-overhead
    one_pass: bool | None = None  # of the encoders over all BN groups, not group by group. None: on a GPU that holds it
    deal_keys: bool = False  # several ranks: Shuffling BN by the loader: no rank sends images; each is read twice
    threads: Threads | None = None  # of torch on a CPU; the last bits of sums depend on it. None: torch's default
