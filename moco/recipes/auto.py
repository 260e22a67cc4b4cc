"""The recipe for images that nobody has chosen one for: MoCo v2 with sizes that fit the images and the device."""

from moco.recipe import Recipe, RecipeError
from moco.recipes.cifar import moco_cifar
from moco.recipes.moco_v2 import moco_v2_r50
from moco.recipes.origin import Origin
from moco.schedule import Constant, Cosine

FEWEST = 16  # images that make a run of any kind
FITTED = (
    "encoder.name", "encoder.head", "method.temperature", "method.size", "method.momentum", "method.bn_groups",
    "optim.batch_size", "optim.lr", "optim.epochs", "data.size", "data.eval_resize",
)  # fmt: skip


def auto_origin(recipe: Recipe) -> Origin:
    """Of a recipe that `auto` made: what it fits to the images is its own guess, the rest is as in its base."""
    base = "moco_cifar" if recipe.encoder.stem == "3x3" else "moco_v2_r50"
    return Origin(dict.fromkeys(FITTED, "this project's first guess, fitted to the images: moco/recipes/auto.py"), base)


def _power_of_two(limit: int) -> int:
    return 1 << (max(limit, 1).bit_length() - 1)


def auto(num_images: int, *, side: int, accelerated: bool, epochs: float | str | None = None) -> Recipe:
    """MoCo v2 for `num_images` images whose shorter side is about `side` pixels.

    Batch, K, m, lr and epochs follow the rules stated beside them: first guesses, not results. Raises RecipeError for
    fewer than 16 images, or epochs that are no positive number.
    """
    if epochs is not None:  # the rules below compute with it
        epochs = Recipe(name="auto").but(None, {"optim.epochs": epochs}).optim.epochs
    if num_images < FEWEST:
        raise RecipeError(f"pre-training expects at least {FEWEST} images, and there are {num_images}: add images")
    small = side <= 64
    batch = _power_of_two(min(256 if accelerated or small else 32, num_images // 3))
    per_epoch = num_images // batch
    if epochs is None:  # 200 as in the paper; on a CPU what it gets through in minutes, but so many steps at least
        epochs = 200 if accelerated else max(5, min(200, -(-(2000 if small else 400) // per_epoch)))
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
            # 1 / (1 - m), the steps that f_k looks back, is a twentieth of the run, between 10 and the paper's 1,000
            "method.momentum": Constant(1 - max(1 / 1000, min(1 / 10, 20 / steps))),
            "method.bn_groups": max(2, min(8, batch // 32)),  # of 32 images, as on the paper's GPUs
            "optim.batch_size": batch,
            "optim.lr": Cosine(reference_lr * batch / reference_batch, whole_epochs=True),  # the linear rule
            "optim.epochs": epochs,
            "data.size": side if small else 224 if accelerated else 96,
            "data.eval_resize": side if small else 256 if accelerated else 110,
        },
        source="MoCo v2 (arXiv:2003.04297), fitted to the images by moco/recipes/auto.py",
    )
