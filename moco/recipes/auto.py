"""The default recipe `auto`: MoCo v2, with sizes fitted to the images, the device and the time."""

from typing import NamedTuple

from moco.recipe import MethodSpec, Recipe, RecipeError, unknown
from moco.recipes.cifar import moco_cifar
from moco.recipes.moco_v2 import moco_v2_r50
from moco.recipes.sources_of_numbers import Origin
from moco.schedule import Constant, Cosine

MIN_IMAGES = 16  # for any run
LARGE = 6  # images whose shorter side is at least so many times the view are decoded smaller (benchmarks/scaled.py)
SMALL_DATA = 64  # [pixels] images with a shorter side of at most this are small: no blur, and a stem for small images
FITTED = {  # setting -> rule
    "encoder.name": "resnet50 on a GPU; resnet18 on a CPU and for small images; with a budget by the measured time",
    "encoder.stem": "stride 2 without pooling for views of at most 64 pixels",
    "encoder.width": "1; smaller if the measured time asks for it",
    "encoder.head": "as in MoCo v2, for images of any size; linear for the smallest networks: docs/log.md",
    "method.temperature": "0.2; 0.1 for views of at most 64 pixels, as in the CIFAR notebook",
    "method.size": "a power of two, at most a quarter of the different images and 65,536 (4,096 for views of at most "
    "64 pixels), at least the mini-batch",
    "method.momentum": "1 / (1 - m) is a twentieth of the run's steps, between 10 and 1,000",
    "method.bn_groups": "2 to 8 groups of 32 images, of 64 for the smaller networks",
    "optim.batch_size": "a power of two, at most a third of the images and 256 (32 on a CPU, except for small images); "
    "with a budget so that there are 2,000 steps, at least 32",
    "optim.lr": "linear in the mini-batch: 0.03 for 256 images; for small images 0.06 for 512; for networks that are "
    "chosen by time 0.06 for 128: docs/log.md",
    "optim.epochs": "200; on a CPU enough for 400 steps (2,000 for small images), 5 to 200; with a budget what fits",
    "data.size": "224 pixels on a GPU, 96 on a CPU; small images at full size; with a budget by the measured time",
    "data.shrink": "with a budget, twice the size of a view if the images then fit into memory",
    "data.decode": "scaled if the shorter side of the images is at least six times the view, as JPEG photographs are "
    "then read 1.4 times as fast or faster: docs/data.md; else exact",
    "data.eval_resize": "256 pixels on a GPU, 110 on a CPU; small images at full size; with a budget 8/7 of the view",
    "data.views.blur": "none for views of at most 64 pixels, as in the CIFAR notebook",
    "compute.precision": "bf16 if it was measured to be faster, else fp32",
}
PASSES = 500_000  # images that a run by scale sees, if no epochs are given: about the demo's
WHAT = "MoCo v2, fitted to the number and size of the images, the device and the time. The default."
AUTO_PREFIX = "auto:"  # `auto:small` is `auto` with a network and view size of SCALES


class NetworkSize(NamedTuple):
    """A network and view size that `auto` can choose."""

    network: str
    width: float
    stem: str
    size: int  # [pixels] of a view, at most
    batch: int  # images, at most


NETWORK_SIZES = {  # from the cheapest to the most expensive
    "tiny": NetworkSize("resnet10", 0.25, "3x3/2", 32, 128),
    "small": NetworkSize("resnet18", 0.25, "3x3/2", 48, 128),
    "medium": NetworkSize("resnet18", 0.5, "3x3/2", 64, 128),
    "large": NetworkSize("resnet18", 1.0, "7x7/2+pool", 96, 128),
    "full": NetworkSize("resnet50", 1.0, "7x7/2+pool", 224, 256),
}


def is_auto(recipe: str) -> bool:
    """Whether `recipe` is "auto" or "auto:SCALE". Raises RecipeError for a scale that does not exist."""
    if not recipe.startswith(AUTO_PREFIX):
        return recipe == "auto"
    scale_of(recipe)
    return True


def scale_of(recipe: str) -> str | None:
    """The scale that "auto:SCALE" names; None for "auto". Raises RecipeError for one that does not exist."""
    if not recipe.startswith(AUTO_PREFIX):
        return None
    scale = recipe.removeprefix(AUTO_PREFIX)
    if scale not in NETWORK_SIZES:
        raise RecipeError(unknown("scale of auto", scale, list(NETWORK_SIZES)))
    return scale


def auto_origin(recipe: Recipe) -> Origin:
    """The origin of a recipe that `auto` made: fitted settings are this project's guess, the rest is from its base."""
    base = "moco_cifar" if recipe.encoder.stem == "3x3" else "moco_v2_r50"
    return Origin({name: f"this project's first guess: {rule}" for name, rule in FITTED.items()}, base)


def example() -> Recipe:
    """The recipe that `auto` makes for 10,000 images of 256 pixels on a GPU."""
    source = "MoCo v2 (arXiv:2003.04297), fitted to an example: 10,000 images, 256 pixels, a GPU"
    return auto(10_000, side=256, accelerated=True).but(None, source=f"{source}. For those of a run: moco explain RUN")


def epochs_for(steps_per_epoch: int, *, small: bool, accelerated: bool) -> int:
    """200 as in the paper. On a CPU fewer, so that a run takes minutes: enough for 400 steps, 2,000 if `small`."""
    return 200 if accelerated else max(5, min(200, -(-(2000 if small else 400) // steps_per_epoch)))


def _groups(batch: int, images: int = 32) -> int:
    """The number of BN groups: of 32 images as on the paper's GPUs, or larger where 32 does not divide the batch."""
    most = max(2, min(8, batch // images))
    return next((groups for groups in range(most, 1, -1) if batch % groups == 0), most)


def _power_of_two(limit: int) -> int:
    return 1 << (max(limit, 1).bit_length() - 1)


def auto(
    num_images: int,
    *,
    side: int,
    accelerated: bool,
    epochs: float | str | None = None,
    batch_size: int | str | None = None,
    distinct: int | None = None,
    scale: str | None = None,
    shrink: int | None = None,
) -> Recipe:
    """MoCo v2 for `num_images` images whose shorter side is about `side` pixels.

    The rules of FITTED are first guesses, not results of experiments. `epochs` and `batch_size` override them.

    Args:
        distinct: the number of different images, without copies; None: all are different.
        scale: a network and view size of NETWORK_SIZES; None: by `side` and `accelerated`.
        shrink: [pixels] the shorter side that images are shrunk to and kept in memory with; None: they are not.

    Raises:
        RecipeError: fewer than 16 images, or epochs or a batch size that are not positive numbers.
    """
    given = {"optim.epochs": epochs, "optim.batch_size": batch_size}  # checked first: the rules below use them
    checked = Recipe(name="auto", method=MethodSpec(dictionary="batch", size=None, bn="plain")).but(
        None, {name: value for name, value in given.items() if value is not None}
    )
    if num_images < MIN_IMAGES:
        raise RecipeError(f"pre-training expects at least {MIN_IMAGES} images, and there are {num_images}: add images")
    distinct = distinct or num_images
    own_epochs = None if epochs is None else checked.optim.epochs
    own_batch = None if batch_size is None else checked.optim.batch_size
    if scale is not None and not (scale in ("large", "full") and side <= SMALL_DATA):
        size = NETWORK_SIZES[scale]
        return _scaled(num_images, distinct, size, side=side, shrink=shrink, epochs=own_epochs, batch_size=own_batch)
    return _by_rules(
        num_images, distinct, side=side, accelerated=accelerated, epochs=own_epochs, batch_size=own_batch
    )  # fmt: skip


def _by_rules(
    num_images: int, distinct: int, *, side: int, accelerated: bool, epochs: float | None, batch_size: int | None
) -> Recipe:
    """MoCo v2 by the rules of FITTED; see `auto`."""
    small = side <= SMALL_DATA
    batch = batch_size or _power_of_two(min(256 if accelerated or small else 32, num_images // 3))
    per_epoch = max(1, num_images // batch)
    epochs = epochs or epochs_for(per_epoch, small=small, accelerated=accelerated)
    steps = epochs * per_epoch
    size = side if small else 224 if accelerated else 96
    base = moco_cifar() if small else moco_v2_r50()
    reference_lr, reference_batch = (0.06, 512) if small else (0.03, 256)
    return base.but(
        "auto",
        {
            "encoder.name": "resnet50" if accelerated and not small else "resnet18",
            "encoder.head": "mlp",
            "method.temperature": 0.1 if small else 0.2,
            # a quarter of the images: a query meets 0.03 other views of its own image on average (K^2 / 2 n^2)
            "method.size": max(batch, _power_of_two(min(65536, distinct // 4))),
            "method.momentum": momentum_for(steps),
            "method.bn_groups": _groups(batch),
            "optim.batch_size": batch,
            "optim.lr": Cosine(reference_lr * batch / reference_batch, whole_epochs=True),  # the linear rule
            "optim.epochs": epochs,
            "data.size": size,
            "data.decode": _decode(side, size),
            "data.eval_resize": side if small else 256 if accelerated else 110,
        },
        source="MoCo v2 (arXiv:2003.04297), fitted to the images: moco explain RUN",
    )


def _decode(side: int, size: int) -> str:
    """How images with that shorter side are decoded for views of `size` pixels."""
    return "scaled" if side >= LARGE * size else "exact"


def momentum_for(steps: float) -> Constant:
    """m, so that f_k averages over 1 / (1 - m) steps: a twentieth of the run, between 10 and the paper's 1,000."""
    return Constant(1 - max(1 / 1000, min(1 / 10, 20 / steps)))


def _scaled(
    num_images: int,
    distinct: int,
    scale: NetworkSize,
    *,
    side: int,
    shrink: int | None,
    epochs: float | None,
    batch_size: int | None,
) -> Recipe:
    """MoCo v2 with the network and view size of `scale`; see `auto`."""
    size = min(scale.size, side)
    low, paper = size <= SMALL_DATA, scale.size == 224
    batch = batch_size or _power_of_two(min(scale.batch, num_images // 3))
    epochs = epochs or max(5, min(200, -(-PASSES // num_images)))
    reference_lr, reference_batch = (0.03, 256) if paper else (0.06, 128)
    return moco_v2_r50().but(
        "auto",
        {
            "encoder.name": scale.network,
            "encoder.stem": scale.stem,
            "encoder.width": scale.width,
            "encoder.head": "linear" if scale.width < 0.5 else "mlp",
            "method.temperature": 0.1 if low else 0.2,
            "method.size": max(batch, _power_of_two(min(4096 if low else 65536, distinct // 4))),
            "method.momentum": momentum_for(epochs * max(1, num_images // batch)),
            "method.bn_groups": _groups(batch, 32 if paper else 64),
            "optim.batch_size": batch,
            "optim.lr": Cosine(reference_lr * batch / reference_batch),
            "optim.epochs": epochs,
            "data.size": size,
            "data.shrink": shrink,
            "data.decode": _decode(side, size),
            "data.eval_resize": min(side, round(size * 8 / 7)),
            **({"data.views.0.blur": 0.0, "data.views.1.blur": 0.0} if low else {}),
        },
        source="MoCo v2 (arXiv:2003.04297), fitted to the images and the time: moco explain RUN",
    )
