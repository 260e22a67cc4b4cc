"""Resize images and their objects for the network (docs/transfer.md, difference 9)."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from moco.transfer.models.sampling import Target


def compute_resized_shape(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """(height, width) with a shorter side of `shorter`, or less if the longer side would exceed `longest`."""
    scale = shorter / min(height, width)
    new = (shorter, scale * width) if height < width else (scale * height, shorter)
    if max(new) > longest:
        scale = longest / max(new)
        new = (new[0] * scale, new[1] * scale)
    return int(new[0] + 0.5), int(new[1] + 0.5)


def resize(
    image: UInt8[Tensor, "3 h w"], target: Target | None, *, shorter: int, longest: int
) -> tuple[UInt8[Tensor, "3 H W"], Target | None]:
    """The image, resized by Pillow's bilinear filter, and a copy of its objects, scaled to fit.

    The filter averages pixels where the image shrinks. torchvision's detectors resize in the model, without averaging.
    """
    height, width = image.shape[1:]
    size = compute_resized_shape(height, width, shorter, longest)
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
    return image, None if target is None else _scaled(target, (height, width), size)


def _scaled(target: Target, own: tuple[int, int], size: tuple[int, int]) -> Target:
    scale = torch.tensor([size[1] / own[1], size[0] / own[0], 1], dtype=torch.float64)
    boxes = target["boxes"]
    scaled = {**target, "boxes": (boxes * scale[:2].repeat(2)).to(boxes.dtype)}
    if "keypoints" in target:
        scaled["keypoints"] = (target["keypoints"] * scale).to(boxes.dtype)
    masks = target.get("masks")
    if isinstance(masks, Tensor):
        kind = Image.Resampling.NEAREST
        rows = [np.array(Image.fromarray(mask.numpy()).resize((size[1], size[0]), kind)) for mask in masks.byte()]
        empty = torch.zeros(0, *size, dtype=torch.bool)
        scaled["masks"] = torch.from_numpy(np.stack(rows)).bool() if rows else empty
    elif masks is not None:
        factors = scale[:2].numpy()
        scaled["masks"] = [[(part.reshape(-1, 2) * factors).ravel() for part in parts] for parts in masks]
    return scaled
