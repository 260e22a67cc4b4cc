"""MoCo v2 (arXiv:2003.04297): v1 with an MLP head, stronger augmentation, temperature 0.2 and a cosine schedule."""

from moco.recipe import Jitter, Recipe, View
from moco.recipes.moco_v1 import CODE, IMAGENET_LINEAR, moco_v1_r50
from moco.recipes.sources_of_numbers import Origin, Published
from moco.schedule import Cosine

PAPER = "arXiv:2003.04297"

V2_VIEW = View(
    crop_area=(0.2, 1.0), jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    grey=0.2, blur=0.5, blur_sigma=(0.1, 2.0), flip=0.5,
)  # fmt: skip


def moco_v2_r50() -> Recipe:
    """MoCo v2, ResNet-50, 200 epochs."""
    return moco_v1_r50().but(
        "moco_v2_r50",
        {
            "encoder.head": "mlp",
            "data.views": (V2_VIEW, V2_VIEW),
            "method.temperature": 0.2,
            "optim.lr": Cosine(0.03, whole_epochs=True),
        },
        source=f"{PAPER}, Sec. 3 and Table 1; {CODE} --mlp --moco-t 0.2 --aug-plus --cos",
    )


def moco_v2_r50_800() -> Recipe:
    """MoCo v2, ResNet-50, 800 epochs."""
    return moco_v2_r50().but("moco_v2_r50_800", {"optim.epochs": 800})


ORIGINS: dict[str, Origin] = {
    "moco_v2_r50": Origin(
        base="moco_v1_r50",
        sources={
            "encoder.head": f"{PAPER}, Sec. 3: 2 layers, 2048 hidden, ReLU; {CODE} --mlp: no BN",
            "data.views": f"{PAPER}, Sec. 3: those of v1, and blur; {CODE} --aug-plus: the numbers",
            "data.views.crop_ratio": "torchvision's RandomResizedCrop",
            "data.views.solarize": f"{CODE} main_moco.py: none",
            "method.temperature": f"{PAPER}, Sec. 3: the best with the MLP head (66.2, and 62.9 at 0.07)",
            "optim.lr": f"{PAPER}, Sec. 3; {CODE} --cos: set once an epoch, never quite 0",
        },
        published=(
            Published(IMAGENET_LINEAR, 67.5, f"{PAPER}, Table 1"),
            Published(f"{IMAGENET_LINEAR}, mean of 5 runs (+- 0.1)", 67.5, f"{CODE} README"),
            Published(f"{IMAGENET_LINEAR}, the released weights", 67.7, f"{CODE} README"),
            Published("VOC 07+12 detection (C4), AP", 57.0, f"{CODE} detection/README"),
        ),
    ),
    "moco_v2_r50_800": Origin(
        base="moco_v2_r50",
        sources={"optim.epochs": f"{PAPER}, Table 2"},
        published=(
            Published(IMAGENET_LINEAR, 71.1, f"{PAPER}, Table 2"),
            Published("VOC 07+12 detection (C4), AP", 57.4, f"{CODE} detection/README"),
        ),
    ),
}
