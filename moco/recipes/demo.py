"""The recipe of the demo: a few minutes on two cores. Tuned on a held-out part of its training images: docs/log.md."""

from moco.recipe import ComputeSpec, DataSpec, EncoderSpec, Jitter, MethodSpec, OptimSpec, Recipe, View
from moco.recipes.sources_of_numbers import Origin
from moco.schedule import Constant, Cosine

DEMO_VIEW = View(
    crop_area=(0.35, 1.6),  # above 1: the image is padded, so that garments appear at more sizes
    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, p=0.8), grey=0.0, blur=0.0, flip=0.5,
)  # fmt: skip


def demo() -> Recipe:
    """A ResNet-10 a quarter as wide, on 32 x 32 images."""
    return Recipe(
        name="demo",
        source="this project: docs/log.md",
        encoder=EncoderSpec(name="resnet10", stem="3x3/2", width=0.25, head="linear", dim=128),
        method=MethodSpec(size=4096, temperature=0.1, momentum=Constant(0.99), bn="shuffle", bn_groups=2),
        optim=OptimSpec(lr=Cosine(0.06), momentum=0.9, weight_decay=5e-4, batch_size=128, epochs=40),
        data=DataSpec(
            size=32, eval_resize=32, views=(DEMO_VIEW, DEMO_VIEW), mean=(0.15, 0.15, 0.15), std=(0.3, 0.3, 0.3)
        ),
        compute=ComputeSpec(threads=1),  # a second one gains little on so small a network and loses much on busy cores
    )  # fmt: skip


OUR_CHOICE = "this project's choice: docs/log.md"
ORIGINS: dict[str, Origin] = {
    "demo": Origin(
        {"encoder": OUR_CHOICE, "method": OUR_CHOICE, "optim": OUR_CHOICE, "data": OUR_CHOICE, "compute": OUR_CHOICE}
    ),
}
