"""MoCo for CIFAR-10 on one device: the setting of the authors' demo notebook."""

from moco.recipe import DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Recipe, View
from moco.recipes.sources_of_numbers import Origin, Published
from moco.schedule import Constant, Cosine

NOTEBOOK = "the CIFAR-10 demo notebook of facebookresearch/moco"

CIFAR_VIEW = View(
    crop_area=(0.08, 1.0),
    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8), grey=0.2, blur=0.0, flip=0.5,
)  # fmt: skip


def moco_cifar() -> Recipe:
    """MoCo for CIFAR-10, ResNet-18 with a 3x3 stem, 200 epochs."""
    return Recipe(
        name="moco_cifar",
        source=f"{NOTEBOOK} (its settings and its printed results)",
        encoder=EncoderSpec(name="resnet18", stem="3x3", head="linear", dim=128),
        method=MethodSpec(size=4096, temperature=0.1, momentum=Constant(0.99), bn="shuffle", bn_groups=8),
        optim=OptimSpec(
            lr=Cosine(0.06, whole_epochs=True, first=1),  # its epochs count from 1: the last one has lr 0
            momentum=0.9, weight_decay=5e-4, batch_size=512, epochs=200,
        ),
        data=DataSpec(
            size=32, eval_resize=32, views=(CIFAR_VIEW, CIFAR_VIEW),
            mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010),
        ),
    )  # fmt: skip


def moco_cifar_symmetric() -> Recipe:
    """MoCo for CIFAR-10, each view in turn as the query, 200 epochs."""
    return moco_cifar().but("moco_cifar_symmetric", {"method.symmetric": True})


def _knn_results(*accuracies: float) -> tuple[Published, ...]:
    """After 200, 400 and 800 epochs."""
    return tuple(
        Published(f"CIFAR-10, kNN (200 neighbours) after {epochs} epochs", accuracy, NOTEBOOK)
        for epochs, accuracy in zip((200, 400, 800), accuracies, strict=True)
    )


ORIGINS: dict[str, Origin] = {
    "moco_cifar": Origin(
        sources={
            "encoder": NOTEBOOK,
            "encoder.width": f"{NOTEBOOK}: torchvision's ResNet-18",
            "encoder.dilate_last": f"{NOTEBOOK}: torchvision's ResNet-18",
            "encoder.zero_init": f"{NOTEBOOK}: torchvision's ResNet-18",
            "method": NOTEBOOK,
            "method.bn": f"{NOTEBOOK}: shuffled, on one GPU",
            "method.bn_groups": f"{NOTEBOOK}: 8 splits",
            "method.scale_loss": f"{NOTEBOOK}: not scaled",
            "method.predictor": f"{NOTEBOOK}: none",
            "optim.optimizer": NOTEBOOK,
            "optim.lr": f"{NOTEBOOK}: its epochs count from 1, the last one has lr 0",
            "optim.momentum": NOTEBOOK,
            "optim.weight_decay": NOTEBOOK,
            "optim.batch_size": NOTEBOOK,
            "optim.epochs": f"{NOTEBOOK}: the shortest of 200, 400, 800",
            "data": NOTEBOOK,
            "data.views.crop_area": f"{NOTEBOOK}: torchvision's default",
            "data.views.crop_ratio": "torchvision's RandomResizedCrop",
            "data.views.blur": f"{NOTEBOOK}: none",
            "data.views.solarize": f"{NOTEBOOK}: none",
            "compute.precision": f"{NOTEBOOK}: no autocast",
        },
        deviations={
            "method.bn_groups": "a group has consecutive images of the mini-batch, in the notebook every eighth image; "
            "the order is random, so the distribution is the same",
            "encoder.head": "the published kNN accuracies use the normalized output of this head; `moco eval knn` uses "
            "the features before it",
        },
        published=_knn_results(82.6, 86.3, 88.7),
    ),
    "moco_cifar_symmetric": Origin(
        base="moco_cifar",
        sources={"method.symmetric": f"{NOTEBOOK}: the two losses add up, one momentum update, both keys enqueued"},
        published=_knn_results(85.3, 88.5, 89.7),
    ),
}
