"""The sizes of ablations: for each, the base recipes and the values that depend on the size."""

from dataclasses import dataclass

from moco import recipes
from moco.recipe import Recipe, RecipeError, View, unknown
from moco.recipes.moco_v1 import V1_VIEW
from moco.recipes.moco_v2 import V2_VIEW
from moco.schedule import Cosine, Steps

__all__ = ["ABLATION_SCALES", "Scale", "at_scale"]


@dataclass(frozen=True)
class Scale:
    """Base recipes and values from which families of recipes are derived."""

    name: str
    images: int  # in the training set; for the cost estimate only
    moco: Recipe  # the queue, as MoCo v1 has it
    v3: Recipe  # MoCo v3 with a ViT
    momentum_keys: int  # K of the ablation of m
    keys: tuple[int, ...]  # K of the queue and of the bank
    more_keys: tuple[int, ...]  # further K of the queue, in the ablation `queue`
    batches: tuple[int, ...]  # N = K of end-to-end
    widths: tuple[float, float, float]  # x1, x2, x4
    steps: Steps  # the learning rate of v2's baseline; v2 itself has a cosine
    views: tuple[View, View]  # v1's, v2's
    longer: int  # epochs of v2's last row
    patch_rates: tuple[float, ...]  # base learning rates of v3, which grow with N / 256
    patch_epochs: int
    v3_batches: tuple[int, ...]
    linear: bool  # whether to score by a linear classifier with all labels
    neighbours: int  # k of kNN
    flops_per_unit: float  # floating-point operations in a unit of cost
    unit: str
    rate_from: str  # source of that number
    says: str  # what results at this scale can and cannot show


# 53 h on 8 V100s for 200 epochs of MoCo v1 with a ResNet-50 (arXiv:2003.04297, Table 3): four times the 8.2 GFLOP of a
# forward pass for each of 1.28 M images make 5.5e12 a second on each GPU
V100_HOUR, V100S = 5.5e12 * 3600, "at the speed of MoCo v1's 53 h on 8 V100s"
CORE_MINUTE = 2e10 * 60  # as in docs/ablations.md: 1.4e10 a second with its ResNet, 4.4e10 with its ViT


def at_scale(name: str) -> Scale:
    """The scale called `name`. Raises RecipeError if there is none."""
    if name not in ABLATION_SCALES:
        raise RecipeError(unknown("scale", name, list(ABLATION_SCALES)))
    return ABLATION_SCALES[name]()


def demo_scale() -> Scale:
    """The pictures that come with the package, and runs of less than a minute on one core: docs/log.md."""
    base = recipes.named("demo").but(
        "demo_short",
        {
            "encoder.width": 0.125, "method.bn_groups": 2, "optim.batch_size": 64, "optim.epochs": 6,
            "optim.lr": Cosine(0.03),
        },
    )  # fmt: skip
    view = base.data.views[0]
    plain = view.model_copy(update={"jitter": view.jitter.model_copy(update={"p": 1.0})})  # v1: always
    strong = view.model_copy(update={"blur": 0.5, "blur_sigma": (0.1, 1.0)})  # v2: 0.1 to 2 of 224 pixels
    v3 = base.but(
        "demo_short_v3",
        {
            "encoder.name": "vit_micro", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0,
            "encoder.patch": 8,  # 16 patches: with 64 an epoch takes four times as long
            "encoder.freeze_patch": True, "encoder.head": "projector3", "encoder.hidden": 256, "encoder.dim": 64,
            "method.dictionary": "batch", "method.size": None, "method.symmetric": True, "method.predictor": "mlp_bn",
            "method.bn": "plain",  # one rank: the whole mini-batch, as synchronized BN takes it
            "method.temperature": 0.2, "method.scale_loss": True, "method.momentum": Cosine(0.99, stop=1.0),
            "optim.optimizer": "adamw", "optim.lr": Cosine(2e-3, warmup=1), "optim.weight_decay": 0.1,
            "optim.batch_size": 128, "optim.epochs": 3,
        },
    )  # fmt: skip
    return Scale(
        name="demo", images=12_000, moco=base, v3=v3, momentum_keys=4096, keys=(64, 256, 1024, 4096),
        more_keys=(2048, 8192), batches=(64, 256, 1024), widths=(0.0625, 0.125, 0.25),
        steps=Steps(0.03, at=(3.6, 4.8), factor=0.1), views=(plain, strong), longer=9,
        patch_rates=(1e-3, 4e-3, 16e-3), patch_epochs=3, v3_batches=(64, 128, 256, 512), linear=False, neighbours=20,
        flops_per_unit=CORE_MINUTE, unit="minutes of one core", rate_from="as measured for docs/ablations.md",
        says="12,000 grey pictures of 32 x 32 pixels, networks of 0.1 to 0.3 million parameters and a few epochs: "
        "this shows what breaks a method at once, and what helps or hinders its first thousand steps. It cannot show "
        "what helps in long training or a large network. Scores are measured on 2,000 test pictures, so the score of "
        "one run has a standard error of about a point, apart from the effect of the seed.",
    )  # fmt: skip


def cifar_scale() -> Scale:
    """CIFAR-10, as the authors' demo notebook has it; its own ViT is this project's, and untuned."""
    base = recipes.named("moco_cifar")
    strong = V2_VIEW.model_copy(update={"crop_area": base.data.views[0].crop_area, "blur_sigma": (0.1, 1.0)})
    plain = V1_VIEW.model_copy(update={"crop_area": base.data.views[0].crop_area})
    small = {"encoder.patch": 4, "data.size": 32, "data.eval_resize": 32, "data.mean": base.data.mean,
             "data.std": base.data.std, "data.views": base.data.views, "method.bn": "plain",
             "optim.batch_size": 512, "optim.epochs": 200, "optim.lr": Cosine(3e-4, warmup=20)}  # fmt: skip
    v3 = recipes.named("moco_v3_vit_small").but("cifar_v3_vit_small", small, source="this project, untuned")
    return Scale(
        name="cifar", images=50_000, moco=base, v3=v3, momentum_keys=4096, keys=(512, 1024, 4096, 16384),
        more_keys=(32768,), batches=(256, 512, 1024), widths=(1.0, 2.0, 4.0),
        steps=Steps(0.06, at=(120, 160), factor=0.1), views=(plain, strong), longer=800,
        patch_rates=(0.5e-4, 1e-4, 1.5e-4), patch_epochs=200, v3_batches=(256, 512, 1024, 2048),
        linear=True, neighbours=200,
        flops_per_unit=V100_HOUR, unit="V100-hours", rate_from=V100S,
        says="CIFAR-10 by the settings of the authors' notebook, whose own scores are kNN accuracies: the paper's "
        "numbers beside them are of ImageNet, so order and sign can be compared, and sizes cannot.",
    )  # fmt: skip


def imagenet_scale() -> Scale:
    """ImageNet by the papers' own recipes."""
    base, v3 = recipes.named("moco_v1_r50"), recipes.named("moco_v3_vit_base")
    return Scale(
        name="imagenet", images=1_281_167, moco=base, v3=v3, momentum_keys=4096,
        keys=(256, 512, 1024, 4096, 16384, 65536), more_keys=(), batches=(256, 512, 1024),
        widths=(1.0, 2.0, 4.0), steps=Steps(0.03, at=(120, 160), factor=0.1), views=(V1_VIEW, V2_VIEW), longer=800,
        patch_rates=(0.5e-4, 1e-4, 1.5e-4), patch_epochs=100, v3_batches=(1024, 2048, 4096, 6144),
        linear=True, neighbours=200,
        flops_per_unit=V100_HOUR, unit="V100-hours", rate_from=V100S,
        says="The papers' recipes on the papers' data. Their numbers are of a linear classifier trained by SGD on "
        "augmented images: `moco eval linear RUN DATA --protocol v1` (or v3-vit) is that protocol; the linear score "
        "here is by L-BFGS on cached features.",
    )  # fmt: skip


ABLATION_SCALES = {"demo": demo_scale, "cifar": cifar_scale, "imagenet": imagenet_scale}
