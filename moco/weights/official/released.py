"""The weights that MoCo's authors have released: addresses and licences."""

from typing import NamedTuple

from moco.recipe import unknown
from moco.weights.errors import WeightsError

FAIR_PREFIX = "fair:"
UNCLEAR = "unclear: the LICENSE of the project is MIT, its README says CC-BY-NC 4.0"
NON_COMMERCIAL = "CC-BY-NC 4.0: not for commercial use"
V1 = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
V3 = "https://dl.fbaipublicfiles.com/moco-v3"
LINEAR_PROBE = "a linear probe"


class Released(NamedTuple):
    """A file."""

    name: str
    address: str
    licence: str
    layout: str  # of the file: MoCo v1, v2 or v3, or LINEAR
    network: str
    md5: str | None = None  # its first digits, if published


RELEASED = (
    Released(
        "fair:moco_v1_200ep",
        f"{V1}/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar",
        UNCLEAR,
        "MoCo v1",
        "resnet50",
        "b251726a",
    ),
    Released(
        "fair:moco_v2_200ep",
        f"{V1}/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar",
        UNCLEAR,
        "MoCo v2",
        "resnet50",
        "59fd9945",
    ),
    Released(
        "fair:moco_v2_800ep",
        f"{V1}/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        UNCLEAR,
        "MoCo v2",
        "resnet50",
        "a04e12f8",
    ),
    Released("fair:moco_v3_r50_100ep", f"{V3}/r-50-100ep/r-50-100ep.pth.tar", NON_COMMERCIAL, "MoCo v3", "resnet50"),
    Released("fair:moco_v3_r50_300ep", f"{V3}/r-50-300ep/r-50-300ep.pth.tar", NON_COMMERCIAL, "MoCo v3", "resnet50"),
    Released("fair:moco_v3_r50_1000ep", f"{V3}/r-50-1000ep/r-50-1000ep.pth.tar", NON_COMMERCIAL, "MoCo v3", "resnet50"),
    Released(
        "fair:moco_v3_vit_s_300ep", f"{V3}/vit-s-300ep/vit-s-300ep.pth.tar", NON_COMMERCIAL, "MoCo v3", "vit_small"
    ),
    Released(
        "fair:moco_v3_vit_b_300ep", f"{V3}/vit-b-300ep/vit-b-300ep.pth.tar", NON_COMMERCIAL, "MoCo v3", "vit_base"
    ),
    Released(
        "fair:moco_v3_linear_r50_100ep",
        f"{V3}/r-50-100ep/linear-100ep.pth.tar",
        NON_COMMERCIAL,
        LINEAR_PROBE,
        "resnet50",
    ),
    Released(
        "fair:moco_v3_linear_r50_300ep",
        f"{V3}/r-50-300ep/linear-300ep.pth.tar",
        NON_COMMERCIAL,
        LINEAR_PROBE,
        "resnet50",
    ),
    Released(
        "fair:moco_v3_linear_r50_1000ep",
        f"{V3}/r-50-1000ep/linear-1000ep.pth.tar",
        NON_COMMERCIAL,
        LINEAR_PROBE,
        "resnet50",
    ),
    Released(
        "fair:moco_v3_linear_vit_s_300ep",
        f"{V3}/vit-s-300ep/linear-vit-s-300ep.pth.tar",
        NON_COMMERCIAL,
        LINEAR_PROBE,
        "vit_small",
    ),
    Released(
        "fair:moco_v3_linear_vit_b_300ep",
        f"{V3}/vit-b-300ep/linear-vit-b-300ep.pth.tar",
        NON_COMMERCIAL,
        LINEAR_PROBE,
        "vit_base",
    ),
)


def find_released(name: str) -> Released:
    """The released file called `name`. Raises WeightsError with the nearest name if there is none."""
    for one in RELEASED:
        if one.name == name:
            return one
    raise WeightsError(unknown("weights", name, [one.name for one in RELEASED]))
