"""The settings of fine-tuning for classification, each number with its source.

P: MoCo v1 (arXiv:1911.05722), appendix A.6 and A.7. V: MoCo v3's transfer/README.md and transfer/datasets.py. D: the
defaults of DeiT's main.py, which MoCo v3's authors fine-tuned with, and of the timm functions that it calls.

What the sources do not say. P has no batch size and no weight decay: here 256 and 1e-4, as in the authors'
pre-training. P's lr from random initialization is 0.1: here all rows have the same settings, and `--set optim.lr=0.1`
changes all of them. A.7 gives no length: here 100 epochs, as in A.6. V says "a batch size of 128" and starts 8
processes of 128 each: here 128. By D's rule, lr = given x batch size / 512, the lr for each image is the same in both
readings.

Deviations. D changes lr once an epoch and resizes bicubically: here lr changes at each iteration, and resizing is
bilinear, as in pre-training.
"""

from typing import Any

from moco.recipe_error import RecipeError, unknown
from moco.transfer.classification.recipe import AugmentSpec, ClassificationRecipe, ClassTuneSpec, ImageSpec

V1 = "MoCo v1, appendix A.6 and A.7"
V3 = "MoCo v3, transfer/README.md; DeiT's defaults"


def _adamw(lr: float, batch_size: int, epochs: int, warmup_epochs: int, weight_decay: float) -> ClassTuneSpec:
    """AdamW as in D: cosine to 1e-5, warm-up from 1e-6, lr = given x batch size / 512."""
    lr *= batch_size / 512
    return ClassTuneSpec(
        optimizer="adamw", decay="cosine", milestones=(), lr=lr, lr_end=min(1e-5, lr), warmup_from=min(1.0, 1e-6 / lr),
        warmup_share=warmup_epochs / epochs, epochs=epochs, batch_size=batch_size, weight_decay=weight_decay,
    )  # fmt: skip


def _sgd(lr: float) -> ClassTuneSpec:
    """P: 100 epochs, lr x 0.1 at 70 % and 90 % of them."""
    return ClassTuneSpec(lr=lr, epochs=100, milestones=(0.7, 0.9), batch_size=256, weight_decay=1e-4)


def _small(weight_decay: float = 0.1, **augment: Any) -> ClassificationRecipe:
    """V: 100 epochs, lr 3e-4, warm-up of 3 epochs; crops of 5 to 100 % of the image. D: label smoothing 0.1."""
    return ClassificationRecipe(
        name="small", source=V3, optim=_adamw(3e-4, 128, 100, 3, weight_decay),
        images=ImageSpec(crop_area=(0.05, 1.0)), augment=AugmentSpec(smoothing=0.1, **augment),
    )  # fmt: skip


SCHEDULES: dict[str, ClassificationRecipe] = {
    "inat": ClassificationRecipe(name="inat", source=V1, optim=_sgd(0.025)),  # P (A.6)
    "imagenet": ClassificationRecipe(name="imagenet", source=V1, optim=_sgd(0.03)),  # P (A.7)
    # V (README.md): ImageNet, all layers, 150 epochs; D: all else. Without D's repeated augmentation
    "v3": ClassificationRecipe(
        name="v3",
        source=V3,
        optim=_adamw(5e-4, 1024, 150, 5, 0.05),
        augment=AugmentSpec(rand_augment=9, smoothing=0.1, mixup=0.8, cutmix=1.0, erase=0.25, drop_path=0.1),
    ),
    # V: its four commands. Its transfer/datasets.py has crops and flips, and no RandAugment
    "v3-cifar10": _small(mixup=0.8, cutmix=1.0, drop_path=0.1),
    "v3-cifar100": _small(mixup=0.5, cutmix=1.0, drop_path=0.1),
    "v3-flowers": _small(0.3, erase=0.25, drop_path=0.1),
    "v3-pets": _small(mixup=0.8),
}


def classification_recipe(arch: str, schedule: str) -> ClassificationRecipe:
    """The settings of a name of SCHEDULES, or `imagenet` over a number of iterations.

    Raises:
        RecipeError: an unknown schedule, or another architecture than a linear classifier.
    """
    if arch != "linear":
        raise RecipeError(unknown("architecture for classification", arch, ["linear"]))
    if schedule in SCHEDULES:
        return SCHEDULES[schedule].but(f"classify_{schedule}")
    if schedule.isdecimal() and 0 < int(schedule) < 2**31:
        changes = {"optim.epochs": None, "optim.iterations": int(schedule)}
        source = f"{V1}; over {int(schedule):,} iterations"
        return SCHEDULES["imagenet"].but(f"classify_{schedule}", changes, source=source)
    raise RecipeError(unknown("schedule", schedule, [*SCHEDULES, "a number of iterations"]))
