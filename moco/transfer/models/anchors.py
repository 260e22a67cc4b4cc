"""Anchors: boxes of fixed shapes around every position of a feature map (Faster R-CNN, arXiv:1506.01497, Sec. 3.1.1).

torchvision's generator rounds them to whole pixels, orders them by ratio and infers the stride from the padded image;
Detectron2's, which the paper used, does none of these (docs/transfer.md, difference 2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[Tensor, "A 4"]:
    """The anchors around (0, 0), by size, then by ratio. `ratios` are height / width; the area is size squared."""
    boxes = list[tuple[float, float, float, float]]()
    for size in sizes:
        for ratio in ratios:
            width = (size**2 / ratio) ** 0.5
            height = ratio * width
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes)


def grid_anchors(cell: Float[Tensor, "A 4"], height: int, width: int, stride: int) -> Float[Tensor, "HWA 4"]:
    """`cell` moved to every position of a feature map, by row, column, anchor. Position (0, 0) is pixel (0, 0)."""
    y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
    x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    return (torch.stack([x, y, x, y], dim=-1)[:, :, None] + cell).reshape(-1, 4)
