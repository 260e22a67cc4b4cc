"""End-to-end, Fig. 2(a) of MoCo's paper (arXiv:1911.05722): in-batch keys, whose encoder is trained."""

from moco.recipe import Recipe
from moco.recipes.moco_v1 import IMAGENET_LINEAR, PAPER, moco_v1_r50
from moco.recipes.sources_of_numbers import Origin, Published
from moco.schedule import Steps


def _end_to_end(batch: int) -> Recipe:
    return moco_v1_r50().but(
        f"end_to_end_{batch}",
        {
            "method.key_encoder": "shared",
            "method.dictionary": "batch",
            "method.size": None,
            "optim.batch_size": batch,
            "optim.lr": Steps(0.03 * batch / 256, at=(120, 160), factor=0.1),
        },
        source=f"{PAPER}, Sec. 3.2, Fig. 2(a), Sec. 4.1 and Fig. 3",
    )


def end_to_end_256() -> Recipe:
    """End-to-end with 256 keys, ResNet-50, 200 epochs."""
    return _end_to_end(256)


def end_to_end_512() -> Recipe:
    """End-to-end with 512 keys, ResNet-50, 200 epochs."""
    return _end_to_end(512)


def end_to_end_1024() -> Recipe:
    """End-to-end with 1024 keys, ResNet-50, 200 epochs."""
    return _end_to_end(1024)


def _origin(top1: float) -> Origin:
    return Origin(
        base="moco_v1_r50",
        sources={
            "method.key_encoder": f"{PAPER}, Sec. 3.2, Fig. 2(a): trained by back-propagation",
            "method.dictionary": f"{PAPER}, Sec. 3.2, Fig. 2(a): the keys of the mini-batch",
            "method.size": f"{PAPER}, Fig. 3: as many keys as the mini-batch has images, one of them the positive",
            "method.bn_groups": f"{PAPER}, Sec. 4.1: 8 GPUs",
            "optim.batch_size": f"{PAPER}, Fig. 3",
            "optim.lr": f"{PAPER}, Sec. 4.1: grows linearly with the mini-batch; without that about 2 % worse at 1024",
        },
        deviations={
            "method.key_encoder": "the paper does not say whether f_k was f_q itself or a second network. Here it is "
            "f_q; method.key_encoder=second is the alternative",
        },
        published=(Published(IMAGENET_LINEAR, top1, f"read from {PAPER}, Fig. 3: not printed as a number"),),
    )


ORIGINS: dict[str, Origin] = {
    "end_to_end_256": _origin(54.9),
    "end_to_end_512": _origin(56.4),
    "end_to_end_1024": _origin(57.3),
}
