"""The default recipe `auto`: MoCo v2, with sizes fitted to the images and the device."""

from moco.recipe import MethodSpec, Recipe, RecipeError
from moco.recipes.cifar import moco_cifar
from moco.recipes.moco_v2 import moco_v2_r50
from moco.recipes.sources_of_numbers import Origin
from moco.schedule import Constant, Cosine

MIN_IMAGES = 16  # for any run
FITTED = {  # setting -> rule; small images have a shorter side of at most 64 pixels
    "encoder.name": "resnet50 on a GPU; resnet18 on a CPU and for small images",
    "encoder.head": "as in MoCo v2, for images of any size",
    "method.temperature": "0.2; 0.1 for small images",
    "method.size": "a power of two, at most a quarter of the images and 65,536, at least the mini-batch",
    "method.momentum": "1 / (1 - m) is a twentieth of the run's steps, between 10 and 1,000",
    "method.bn_groups": "2 to 8 groups of 32 images",
    "optim.batch_size": "a power of two, at most a third of the images and 256 (32 on a CPU, except for small images)",
    "optim.lr": "linear in the mini-batch: 0.03 for 256 images; for small images 0.06 for 512",
    "optim.epochs": "200; on a CPU enough for 400 steps (2,000 for small images), 5 to 200",
    "data.size": "224 pixels on a GPU, 96 on a CPU; small images at full size",
    "data.eval_resize": "256 pixels on a GPU, 110 on a CPU; small images at full size",
}
WHAT = "MoCo v2, fitted to the number and size of the images and to the device. The default if no recipe is given."


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


def _groups(batch: int) -> int:
    """The number of BN groups: of 32 images as on the paper's GPUs, or larger where 32 does not divide the batch."""
    most = max(2, min(8, batch // 32))
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
) -> Recipe:
    """MoCo v2 for `num_images` images whose shorter side is about `side` pixels.

    The rules of FITTED are first guesses, not results of experiments. `epochs` and `batch_size` override them.

    Raises:
        RecipeError: fewer than 16 images, or epochs or a batch size that are not positive numbers.
    """
    given = {"optim.epochs": epochs, "optim.batch_size": batch_size}  # checked first: the rules below use them
    checked = Recipe(name="auto", method=MethodSpec(dictionary="batch", size=None, bn="plain")).but(
        None, {name: value for name, value in given.items() if value is not None}
    )
    if num_images < MIN_IMAGES:
        raise RecipeError(f"pre-training expects at least {MIN_IMAGES} images, and there are {num_images}: add images")
    small = side <= 64
    batch = _power_of_two(min(256 if accelerated or small else 32, num_images // 3))
    batch = batch if batch_size is None else checked.optim.batch_size
    per_epoch = max(1, num_images // batch)
    epochs = epochs_for(per_epoch, small=small, accelerated=accelerated) if epochs is None else checked.optim.epochs
    steps = epochs * per_epoch
    base = moco_cifar() if small else moco_v2_r50()
    reference_lr, reference_batch = (0.06, 512) if small else (0.03, 256)
    return base.but(
        "auto",
        {
            "encoder.name": "resnet50" if accelerated and not small else "resnet18",
            "encoder.head": "mlp",
            "method.temperature": 0.1 if small else 0.2,
            # a quarter of the images: a query meets 0.03 other views of its own image on average (K^2 / 2 n^2)
            "method.size": max(batch, _power_of_two(min(65536, num_images // 4))),
            # f_k averages over 1 / (1 - m) steps: a twentieth of the run, between 10 and the paper's 1,000
            "method.momentum": Constant(1 - max(1 / 1000, min(1 / 10, 20 / steps))),
            "method.bn_groups": _groups(batch),
            "optim.batch_size": batch,
            "optim.lr": Cosine(reference_lr * batch / reference_batch, whole_epochs=True),  # the linear rule
            "optim.epochs": epochs,
            "data.size": side if small else 224 if accelerated else 96,
            "data.eval_resize": side if small else 256 if accelerated else 110,
        },
        source="MoCo v2 (arXiv:2003.04297), fitted to the images by moco/recipes/auto.py",
    )
