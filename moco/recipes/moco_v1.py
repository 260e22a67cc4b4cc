"""MoCo v1 (arXiv:1911.05722)."""

from moco.recipe import DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Recipe, View
from moco.recipes.sources_of_numbers import Origin, Published
from moco.schedule import Constant, Decay, Steps

PAPER, CODE = "arXiv:1911.05722", "facebookresearch/moco"
IMAGENET_LINEAR = "ImageNet, linear, top-1"

V1_VIEW = View(
    crop_area=(0.2, 1.0), grey_first=True, grey=0.2,
    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, p=1.0), blur=0.0, flip=0.5,
)  # fmt: skip


def moco_v1_r50() -> Recipe:
    """MoCo v1, ResNet-50, 200 epochs."""
    return Recipe(
        name="moco_v1_r50",
        source=f"{PAPER}, Sec. 3.3 and 4; {CODE} main_moco.py defaults",
        encoder=EncoderSpec(name="resnet50", head="linear", dim=128),
        method=MethodSpec(size=65536, temperature=0.07, momentum=Constant(0.999), bn="shuffle", bn_groups=8),
        optim=OptimSpec(
            lr=Steps(0.03, at=(120, 160), factor=0.1),
            momentum=0.9, weight_decay=1e-4,
            batch_size=256, epochs=200,
        ),
        data=DataSpec(size=224, views=(V1_VIEW, V1_VIEW)),
    )  # fmt: skip


def moco_v1_rx50() -> Recipe:
    """MoCo v1, ResNeXt-50 32x8d, 200 epochs."""
    return moco_v1_r50().but("moco_v1_rx50", {"encoder.name": "resnext50_32x8d"})


def moco_v1_r50w2x() -> Recipe:
    """MoCo v1, ResNet-50 with twice the channels, 200 epochs."""
    return moco_v1_r50().but("moco_v1_r50w2x", {"encoder.width": 2.0})


def moco_v1_r50w4x() -> Recipe:
    """MoCo v1, ResNet-50 with four times the channels, 200 epochs."""
    return moco_v1_r50().but("moco_v1_r50w4x", {"encoder.width": 4.0})


IG_STEPS_PER_EPOCH = 940_000_000 // 1024  # Sec. 4: "~1 billion (940M)" images; schedules are in epochs


def moco_v1_ig1b() -> Recipe:
    """MoCo v1, ResNet-50, on a billion images: 1.36 epochs, 1.25 million steps."""
    return moco_v1_r50().but(
        "moco_v1_ig1b",
        {
            "method.bn_groups": 64,
            "optim.lr": Decay(0.12, every=62_500 / IG_STEPS_PER_EPOCH, factor=0.9),
            "optim.batch_size": 1024,
            "optim.epochs": 1_250_000 / IG_STEPS_PER_EPOCH,
        },
        source=f"{PAPER}, Sec. 4 (Instagram-1B)",
    )


ORIGINS: dict[str, Origin] = {
    "moco_v1_r50": Origin(
        sources={
            "encoder.name": f"{PAPER}, Sec. 4.1",
            "encoder.stem": f"{PAPER}, Sec. 3.3: ResNet; {CODE} builder.py: torchvision's network as it is",
            "encoder.width": f"{PAPER}, Sec. 4.1",
            "encoder.dilate_last": f"{CODE} builder.py: torchvision's network as it is",
            "encoder.zero_init": f"{CODE} builder.py: torchvision's network as it is",
            "encoder.head": f"{PAPER}, Sec. 3.3: a fully-connected layer",
            "encoder.dim": f"{PAPER}, Sec. 3.3",
            "method.key_encoder": f"{PAPER}, Sec. 3.2, Fig. 2(c)",
            "method.dictionary": f"{PAPER}, Sec. 3.2, Fig. 2(c)",
            "method.size": f"{PAPER}, Sec. 4.1; {CODE} --moco-k",
            "method.loss": f"{PAPER}, Eqn. (1)",
            "method.scale_loss": f"{PAPER}, Eqn. (1)",
            "method.temperature": f"{PAPER}, Sec. 3.3, after arXiv:1805.01978; {CODE} --moco-t",
            "method.momentum": f"{PAPER}, Sec. 3.2; {CODE} --moco-m",
            "method.symmetric": f"{PAPER}, Algorithm 1: one view is the query",
            "method.predictor": f"{PAPER}, Algorithm 1: none",
            "method.bn": f"{PAPER}, Sec. 3.3, Shuffling BN",
            "method.bn_groups": f"{PAPER}, Sec. 4: 8 GPUs of 32 images",
            "optim.optimizer": f"{PAPER}, Sec. 4",
            "optim.lr": f"{PAPER}, Sec. 4; {CODE} --schedule; no warm-up",
            "optim.momentum": f"{PAPER}, Sec. 4; without Nesterov",
            "optim.weight_decay": f"{PAPER}, Sec. 4; {CODE} main_moco.py: of every parameter, BN and biases too",
            "optim.batch_size": f"{PAPER}, Sec. 4",
            "optim.epochs": f"{PAPER}, Sec. 4",
            "data.size": f"{PAPER}, Sec. 3.3",
            "data.views": f"{PAPER}, Sec. 3.3; {CODE} main_moco.py: grey, then jitter always",
            "data.views.crop_ratio": "torchvision's RandomResizedCrop",
            "data.views.blur": f"{CODE} main_moco.py: none before v2",
            "data.views.solarize": f"{CODE} main_moco.py: none",
            "data.eval_resize": f"{CODE} main_lincls.py: resized to 256, centre 224",
            "data.mean": f"{CODE} main_moco.py",
            "data.std": f"{CODE} main_moco.py",
            "compute.precision": f"{CODE}: no autocast anywhere",
        },
        deviations={
            "method.bn_groups": "on fewer devices the groups go through the encoder one after the other, each with "
            "its own statistics; the running statistics are the mean of all groups; the released code saves those of "
            "the first GPU",
            "data.views": "views use counter-based random numbers and are augmented in batches: the same distribution "
            "as torchvision's transforms, tested in tests/data",
        },
        published=(
            Published(IMAGENET_LINEAR, 60.6, f"{PAPER}, Table 1"),
            Published(f"{IMAGENET_LINEAR}, mean of 5 runs (+- 0.2)", 60.8, f"{CODE} README"),
            Published("VOC 07+12 detection (C4), AP", 55.9, f"{PAPER}, Table 2"),
        ),
    ),
    "moco_v1_rx50": Origin(
        base="moco_v1_r50",
        sources={"encoder.name": f"{PAPER}, Table 1: RX50, ResNeXt-50 32x8d"},
        published=(Published(IMAGENET_LINEAR, 63.9, f"{PAPER}, Table 1"),),
    ),
    "moco_v1_r50w2x": Origin(
        base="moco_v1_r50",
        sources={"encoder.width": f"{PAPER}, Table 1: R50w2x"},
        published=(Published(IMAGENET_LINEAR, 65.4, f"{PAPER}, Table 1"),),
    ),
    "moco_v1_r50w4x": Origin(
        base="moco_v1_r50",
        sources={"encoder.width": f"{PAPER}, Table 1: R50w4x"},
        published=(Published(IMAGENET_LINEAR, 68.6, f"{PAPER}, Table 1"),),
    ),
    "moco_v1_ig1b": Origin(
        base="moco_v1_r50",
        sources={
            "method.bn_groups": f"{PAPER}, Sec. 4: 64 GPUs, of 16 images",
            "optim.lr": f"{PAPER}, Sec. 4: 0.12, x 0.9 after every 62,500 iterations",
            "optim.batch_size": f"{PAPER}, Sec. 4",
            "optim.epochs": f"{PAPER}, Sec. 4: 1.25 million iterations, about 1.4 epochs",
        },
        deviations={
            "optim.lr": "given in epochs of 917,968 steps (940 million images, 1,024 per step). On other images the "
            "decay happens at the same fractions of the run; the paper's images are not public",
        },
        published=(Published("VOC 07+12 detection (C4), AP", 57.2, f"{PAPER}, Table 2"),),
    ),
}
