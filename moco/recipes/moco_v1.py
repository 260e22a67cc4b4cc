"""MoCo v1 (arXiv:1911.05722)."""

from moco.recipe import DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Recipe, View
from moco.schedule import Constant, Steps

# main_moco.py: grey p 0.2, then jitter always, with hue 0.4; no blur. ImageNet's mean and deviation.
V1_VIEW = View(
    crop_area=(0.2, 1.0), grey_first=True, grey=0.2,
    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, p=1.0), blur=0.0, flip=0.5,
)  # fmt: skip


def moco_v1_r50() -> Recipe:
    """MoCo v1, ResNet-50, 200 epochs. ImageNet linear top-1 60.6 (paper Table 1; repository 60.8 +- 0.2 over 5)."""
    return Recipe(
        name="moco_v1_r50",
        source="arXiv:1911.05722, Sec. 3.3 and 4; facebookresearch/moco main_moco.py defaults",
        encoder=EncoderSpec(name="resnet50", head="linear", dim=128),  # Sec. 3.3: 128-D
        method=MethodSpec(
            size=65536,  # Sec. 4.1, K
            temperature=0.07,  # Sec. 3.3, after InstDisc
            momentum=Constant(0.999),  # Sec. 3.2, m
            shuffle_bn=True, bn_groups=8,  # 8 GPUs of 32 images
        ),
        optim=OptimSpec(
            lr=Steps(0.03, at=(120, 160), factor=0.1),  # Sec. 4: x0.1 at 120 and 160; no warm-up
            momentum=0.9, weight_decay=1e-4,  # Sec. 4; on every parameter, BN and biases too
            batch_size=256, epochs=200,
        ),
        data=DataSpec(size=224, views=(V1_VIEW, V1_VIEW)),
    )  # fmt: skip
