"""MoCo v3 (arXiv:2104.02057): in-batch keys, both views as queries, a predictor; ResNet-50 and Vision Transformers."""

from typing import Any

from moco.recipe import ComputeSpec, DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Recipe, View
from moco.recipes.moco_v1 import IMAGENET_LINEAR
from moco.recipes.sources_of_numbers import Origin, Published
from moco.schedule import Cosine

PAPER, CODE = "arXiv:2104.02057", "facebookresearch/moco-v3"
BATCH = 4096
LR_FACTOR = BATCH / 256  # linear rule: the base learning rates are for 256 images

V3_FIRST_VIEW = View(
    crop_area=(0.2, 1.0), jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
    grey=0.2, blur=1.0, blur_sigma=(0.1, 2.0), solarize=0.0, flip=0.5,
)  # fmt: skip
V3_SECOND_VIEW = V3_FIRST_VIEW.model_copy(update={"blur": 0.1, "solarize": 0.2})
V3_VIEWS = (V3_FIRST_VIEW, V3_SECOND_VIEW)
V3_VIT_VIEWS = (
    V3_FIRST_VIEW.model_copy(update={"crop_area": (0.08, 1.0)}),
    V3_SECOND_VIEW.model_copy(update={"crop_area": (0.08, 1.0)}),
)


def moco_v3_r50_100() -> Recipe:
    """MoCo v3, ResNet-50, 100 epochs."""
    return Recipe(
        name="moco_v3_r50_100",
        source=f"{PAPER}; {CODE} CONFIG.md and main_moco.py",
        encoder=EncoderSpec(name="resnet50", zero_init=True, head="projector2", hidden=4096, dim=256),
        method=MethodSpec(
            key_encoder="momentum", dictionary="batch", size=None, temperature=1.0, scale_loss=True,
            momentum=Cosine(0.99, stop=1.0), symmetric=True, predictor="mlp", bn="sync",
        ),
        optim=OptimSpec(
            optimizer="lars", lr=Cosine(0.6 * LR_FACTOR, warmup=10), momentum=0.9, trust=0.001, weight_decay=1e-6,
            batch_size=BATCH, epochs=100,
        ),
        data=DataSpec(size=224, views=V3_VIEWS),
        compute=ComputeSpec(precision="fp16"),
    )  # fmt: skip


def moco_v3_r50_300() -> Recipe:
    """MoCo v3, ResNet-50, 300 epochs."""
    return moco_v3_r50_100().but(
        "moco_v3_r50_300", {"optim.lr": Cosine(0.3 * LR_FACTOR, warmup=10), "optim.epochs": 300}
    )


def moco_v3_r50_1000() -> Recipe:
    """MoCo v3, ResNet-50, 1000 epochs."""
    return moco_v3_r50_300().but(
        "moco_v3_r50_1000",
        {"method.momentum": Cosine(0.996, stop=1.0), "optim.weight_decay": 1.5e-6, "optim.epochs": 1000},
    )


def moco_v3_vit_small() -> Recipe:
    """MoCo v3, ViT-S/16 with 12 heads, 300 epochs."""
    changes: dict[str, Any] = {
        "encoder.name": "vit_small", "encoder.zero_init": False, "encoder.freeze_patch": True,
        "encoder.position": "sincos", "encoder.head": "projector3",
        "method.predictor": "mlp_bn", "method.temperature": 0.2,
        "optim.optimizer": "adamw", "optim.lr": Cosine(1.5e-4 * LR_FACTOR, warmup=40), "optim.weight_decay": 0.1,
        "optim.epochs": 300, "data.views": V3_VIT_VIEWS,
    }  # fmt: skip
    return moco_v3_r50_100().but("moco_v3_vit_small", changes)


def moco_v3_vit_base() -> Recipe:
    """MoCo v3, ViT-B/16, 300 epochs."""
    return moco_v3_vit_small().but("moco_v3_vit_base", {"encoder.name": "vit_base"})


def moco_v3_vit_large() -> Recipe:
    """MoCo v3, ViT-L/16, 300 epochs."""
    return moco_v3_vit_small().but("moco_v3_vit_large", {"encoder.name": "vit_large"}, source=f"{PAPER}, Sec. 5")


ORIGINS: dict[str, Origin] = {
    "moco_v3_r50_100": Origin(
        sources={
            "encoder.name": f"{CODE} CONFIG.md",
            "encoder.stem": f"{CODE} main_moco.py: torchvision's network",
            "encoder.width": f"{CODE} main_moco.py: torchvision's network",
            "encoder.dilate_last": f"{CODE} main_moco.py: torchvision's network",
            "encoder.zero_init": f"{CODE} main_moco.py: zero_init_residual",
            "encoder.head": f"{CODE} builder.py: 2 layers, BN without weights at the end",
            "encoder.hidden": f"{PAPER}, Sec. 5; {CODE} --moco-mlp-dim",
            "encoder.head_bn": f"{PAPER}, Sec. 5: in every layer of the heads; {CODE} builder.py",
            "encoder.dim": f"{PAPER}, Sec. 5; {CODE} --moco-dim",
            "method.key_encoder": f"{PAPER}, Sec. 3, Algorithm 1",
            "method.dictionary": f"{PAPER}, Sec. 3: no queue, the keys of the mini-batch",
            "method.size": f"{PAPER}, Sec. 3: no queue, the keys of the mini-batch",
            "method.loss": f"{PAPER}, Eqn. (1)",
            "method.scale_loss": f"{PAPER}, Sec. 5 and Algorithm 1: times 2 tau",
            "method.temperature": f"{CODE} --moco-t",
            "method.momentum": f"{CODE} CONFIG.md: --moco-m-cos, at every step",
            "method.symmetric": f"{PAPER}, Sec. 3, Algorithm 1",
            "method.predictor": f"{CODE} builder.py: 2 layers, no BN at the end",
            "method.bn": f"{PAPER}, appendix: synchronized, each view separately; {CODE} main_moco.py",
            "optim.optimizer": f"{CODE} optimizer.py: neither decay nor trust ratio for tensors of one dimension",
            "optim.lr": f"{CODE} CONFIG.md: 0.6 x batch / 256, warm-up from exactly 0, then at every step",
            "optim.momentum": f"{CODE} main_moco.py",
            "optim.trust": f"{CODE} optimizer.py",
            "optim.weight_decay": f"{CODE} --wd",
            "optim.batch_size": f"{PAPER}, Sec. 5; {CODE} CONFIG.md: over all nodes",
            "optim.epochs": f"{CODE} CONFIG.md",
            "data.size": f"{CODE} main_moco.py",
            "data.views": f"{CODE} main_moco.py: crop, jitter, grey, blur, solarize, flip",
            "data.views.crop_area": f"{CODE} CONFIG.md: --crop-min=.2",
            "data.views.blur": f"{CODE} main_moco.py: with p 1, and 0.1 in the second view",
            "data.views.solarize": f"{CODE} main_moco.py: with p 0.2, in the second view only",
            "data.views.crop_ratio": "torchvision's RandomResizedCrop",
            "data.eval_resize": f"{CODE} main_lincls.py: resized to 256, centre 224",
            "data.mean": f"{CODE} main_moco.py",
            "data.std": f"{CODE} main_moco.py",
            "compute.precision": f"{CODE} main_moco.py: autocast, with a GradScaler",
        },
        deviations={
            "compute.precision": "only the encoders use it: normalization, logits and loss are in float32 here, and "
            "under autocast in the released code. On a CPU, fp32 is faster",
            "optim.lr": "the linear rule is applied already: change it for another batch size",
            "data.views": "views use counter-based random numbers and are augmented in batches: the same distribution "
            "as torchvision's transforms, tested in tests/data",
        },
        published=(Published(IMAGENET_LINEAR, 68.9, f"{CODE} CONFIG.md"),),
    ),
    "moco_v3_r50_300": Origin(
        base="moco_v3_r50_100",
        sources={
            "optim.lr": f"{CODE} CONFIG.md: 0.3 x batch / 256, warm-up from exactly 0, then at every step",
            "optim.epochs": f"{CODE} CONFIG.md",
        },
        deviations={"optim.lr": "the linear rule is applied already: change it for another batch size"},
        published=(Published(IMAGENET_LINEAR, 72.8, f"{CODE} CONFIG.md"),),
    ),
    "moco_v3_r50_1000": Origin(
        base="moco_v3_r50_300",
        sources={
            "method.momentum": f"{CODE} CONFIG.md: --moco-m=0.996 --moco-m-cos",
            "optim.weight_decay": f"{CODE} CONFIG.md",
            "optim.epochs": f"{CODE} CONFIG.md",
        },
        published=(
            Published(IMAGENET_LINEAR, 74.6, f"{CODE} CONFIG.md"),
            Published(f"{IMAGENET_LINEAR}, 800 epochs on TPUs", 73.8, PAPER),
        ),
    ),
    "moco_v3_vit_small": Origin(
        base="moco_v3_r50_100",
        sources={
            "encoder.name": f"{PAPER}, Table 2: 12 blocks, 384 wide, 12 heads, 22 M",
            "encoder.patch": f"{PAPER}, Sec. 5: 16 x 16",
            "encoder.position": f"{PAPER}, Sec. 5: sines and cosines in two dimensions, fixed",
            "encoder.freeze_patch": f"{PAPER}, Sec. 4.2; {CODE} --stop-grad-conv1",
            "encoder.head": f"{PAPER}, Sec. 5: 3 layers; {CODE} builder.py: BN without weights at the end",
            "method.predictor": f"{PAPER}, Sec. 5: 2 layers; {CODE} builder.py: BN without weights at the end",
            "method.temperature": f"{PAPER}, Sec. 5; {CODE} CONFIG.md",
            "optim.optimizer": f"{PAPER}, Sec. 5; {CODE} CONFIG.md: weight decay of every parameter",
            "optim.lr": f"{PAPER}, Sec. 5; {CODE} CONFIG.md: 1.5e-4 x batch / 256, warm-up of 40 epochs",
            "optim.weight_decay": f"{PAPER}, Sec. 5; {CODE} CONFIG.md",
            "optim.epochs": f"{CODE} CONFIG.md",
            "data.views.crop_area": f"{CODE} --crop-min, its default",
        },
        deviations={
            "optim.lr": "the linear rule is applied already: change it for another batch size "
            "(6e-4 for 1024 images on 8 GPUs, as in CONFIG.md)",
        },
        published=(
            Published(IMAGENET_LINEAR, 73.2, f"{CODE} CONFIG.md"),
            Published(f"{IMAGENET_LINEAR}, on TPUs", 72.5, PAPER),
            Published("ImageNet, fine-tuned, top-1", 81.4, f"{CODE} README"),
        ),
    ),
    "moco_v3_vit_base": Origin(
        base="moco_v3_vit_small",
        sources={"encoder.name": f"{PAPER}, Table 2: 12 blocks, 768 wide, 12 heads, 86 M"},
        published=(
            Published(IMAGENET_LINEAR, 76.7, f"{CODE} CONFIG.md"),
            Published(f"{IMAGENET_LINEAR}, on TPUs", 76.5, PAPER),
            Published("ImageNet, fine-tuned, top-1", 83.2, f"{CODE} README"),
        ),
    ),
    "moco_v3_vit_large": Origin(
        base="moco_v3_vit_small",
        sources={"encoder.name": f"{PAPER}, Table 2: 24 blocks, 1024 wide, 16 heads, 304 M"},
        deviations={
            "encoder.name": "not in the released PyTorch code: the settings are those of the paper for all ViTs"
        },
        published=(
            Published(f"{IMAGENET_LINEAR}, on TPUs", 77.6, PAPER),
            Published("ImageNet, fine-tuned (100 epochs, drop path 0.5), top-1", 84.1, PAPER),
        ),
    ),
}
