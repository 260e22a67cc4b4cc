"""MoCo v2 (arXiv:2003.04297): v1 but an MLP head, stronger views, temperature 0.2 and a cosine."""

from moco.recipe import Jitter, Recipe, View
from moco.recipes.moco_v1 import moco_v1_r50
from moco.schedule import Cosine

# main_moco.py --aug-plus: jitter p 0.8 with hue 0.1, then grey p 0.2, blur p 0.5 with sigma in (0.1, 2).
V2_VIEW = View(
    crop_area=(0.2, 1.0), jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    grey=0.2, blur=0.5, blur_sigma=(0.1, 2.0), flip=0.5,
)  # fmt: skip


def moco_v2_r50() -> Recipe:
    """MoCo v2, ResNet-50, 200 epochs. ImageNet linear top-1 67.5 (paper Table 1; repository 67.5 +- 0.1 over 5)."""
    return moco_v1_r50().but(
        "moco_v2_r50",
        {
            "encoder.head": "mlp",  # Sec. 3: 2 layers, 2048 hidden, ReLU, no BN
            "data.views": (V2_VIEW, V2_VIEW),
            "method.temperature": 0.2,  # Sec. 3: the best with the MLP head (66.2 against 62.9 at 0.07)
            "optim.lr": Cosine(0.03, whole_epochs=True),  # main_moco.py: set once an epoch, never quite 0
        },
        source="arXiv:2003.04297, Sec. 3 and Table 1; facebookresearch/moco --mlp --moco-t 0.2 --aug-plus --cos",
    )


def moco_v2_r50_800() -> Recipe:
    """MoCo v2 for 800 epochs. ImageNet linear top-1 71.1 (paper Table 2)."""
    return moco_v2_r50().but("moco_v2_r50_800", {"optim.epochs": 800})
