"""RoIAlign over one or several feature maps (Mask R-CNN, arXiv:1703.06870, Sec. 3; FPN, arXiv:1612.03144, Eqn. 1)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align


class Pool(NamedTuple):
    """RoIAlign: pools boxes from feature maps, each to `resolution` x `resolution`.

    torchvision's MultiScaleRoIAlign is not aligned, takes 2 x 2 samples in each cell, and keeps the scales that it has
    inferred from the first batch. Detectron2's ROIAlignV2 is aligned, and takes as many samples as a cell has pixels
    (docs/transfer.md, difference 1). Strides are given here.
    """

    resolution: int
    strides: tuple[int, ...]  # [pixels] of the feature maps, ascending powers of 2
    aligned: bool = True  # samples are shifted by half a pixel, to the pixels' centres
    samples: int = 0  # along each side of a cell; 0: one for each pixel

    def __call__(
        self, features: Sequence[Float[Tensor, "N C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R C r r"]:
        """The RoIs of all images, in the order of `boxes`, whose coordinates are pixels of the image."""
        image = torch.cat([torch.full_like(each[:, :1], index) for index, each in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(list(boxes))], dim=1)
        if len(self.strides) == 1:
            return self._align(features[0], rois, self.strides[0])
        level = levels(rois[:, 1:], self.strides)
        order = [torch.where(level == index)[0] for index in range(len(self.strides))]
        parts = [self._align(*part) for part in zip(features, (rois[i] for i in order), self.strides, strict=False)]
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _align(self, features: Tensor, rois: Tensor, stride: int) -> Tensor:
        size = (self.resolution, self.resolution)
        return roi_align(features, rois, size, 1 / stride, self.samples, self.aligned)


def levels(boxes: Float[Tensor, "R 4"], strides: tuple[int, ...]) -> Int[Tensor, "R"]:
    """The index of the feature map that each box is pooled from. For 224 x 224 pixels it is the map of stride 16."""
    first, last = int(math.log2(strides[0])), int(math.log2(strides[-1]))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8))
    return level.clamp(first, last).long() - first
