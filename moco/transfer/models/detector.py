"""A detector of backbone, region proposal network and heads. It turns images of any size into losses or detections."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from moco.transfer.models.boxes import Detections
from moco.transfer.models.heads import Sizes, branches_of
from moco.transfer.models.proposals import ProposalNetwork
from moco.transfer.models.sampling import Target, check_target
from moco.transfer.models.scale_detections import to_size
from moco.transfer.models.settings import Settings

Image = UInt8[Tensor, "3 _ _"]  # RGB
RGB = tuple[float, float, float]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as Detectron2's PIXEL_MEAN and PIXEL_STD


class Detector(nn.Module):
    """A two-stage detector: `backbone(images)` returns feature maps, `rpn` proposals, `heads` losses or detections.

    Args:
        mean, std: of RGB in [0, 1].
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: ProposalNetwork,
        heads: nn.Module,
        settings: Settings,
        *,
        mean: RGB = MEAN,
        std: RGB = STD,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.heads, self.settings = backbone, rpn, heads, settings
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([255 * value for value in mean]), persistent=False)
        self.register_buffer("std", torch.tensor([255 * value for value in std]), persistent=False)

    def forward(self, images: Sequence[Image], targets: list[Target] | None = None, sizes: Sizes | None = None) -> Any:
        """Return losses by name in training mode, and the detections of each image in evaluation mode.

        Args:
            targets: in training, for each image "boxes" n x 4 (x0, y0, x1, y1), "labels" n in 0 ... K-1, and what its
                branches need: "masks", "keypoints", ...
            sizes: in evaluation, (height, width) to which the detections of each image are scaled; None: the image's.
        """
        own = [(image.shape[1], image.shape[2]) for image in images]
        if not self.training:
            return self._detect(images, own, sizes or own)
        if targets is None or len(targets) != len(images):
            given = "none" if targets is None else str(len(targets))
            raise ValueError(f"training needs a target for each of {len(images)} images, got {given}")
        needed = [branch.target for branch in branches_of(self.heads)]
        for target in targets:
            check_target(target, self.settings.num_classes, needed)
        targets = [on(self.mean.device, target) for target in targets]
        features = self.backbone(self.batch(images))
        proposals, losses = self.rpn(features, own, targets)
        return losses | self.heads.losses(features, proposals, targets)  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def _detect(self, images: Sequence[Image], own: Sizes, sizes: Sizes) -> list[Detections]:
        features = self.backbone(self.batch(images))
        proposals, _ = self.rpn(features, own, None)
        detections = self.heads.predict(features, proposals, own)  # pyright: ignore[reportCallIssue]
        return [to_size(*each) for each in zip(detections, own, sizes, strict=True)]

    def batch(self, images: Sequence[Image]) -> Float[Tensor, "N 3 H W"]:
        """Normalize the images, and pad them with 0 at the right and the bottom to a size divisible by `multiple`."""
        multiple = self.settings.multiple
        height, width = (
            -(-max(image.shape[side] for image in images) // multiple) * multiple for side in (1, 2)
        )  # fmt: skip
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        batch = mean.new_zeros(len(images), 3, height, width)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = (image.to(mean.device) - mean) / std
        return batch


def on(device: torch.device, target: Target) -> Target:
    """`target` with its tensors on `device`."""
    return {name: x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for name, x in target.items()}
