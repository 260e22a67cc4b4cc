"""The papers' views as in their public code: torchvision's transforms on Pillow images."""

import random
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms as T

from moco.recipe import DataSpec, View


def transform(view: View, data: DataSpec) -> T.Compose:
    """A Pillow image to one view 3 x S x S, with the numbers of `view`."""
    jitter = view.jitter
    change = T.RandomApply(
        [T.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)], p=jitter.p
    )
    grey = T.RandomGrayscale(view.grey)
    rare = [T.RandomApply([Blur(view.blur_sigma)], p=view.blur)] if view.blur else []
    rare += [T.RandomApply([ImageOps.solarize], p=view.solarize)] if view.solarize else []
    return T.Compose([
        T.RandomResizedCrop(data.size, scale=view.crop_area, ratio=view.crop_ratio),
        *([grey, change] if view.grey_first else [change, grey]), *rare,
        T.RandomHorizontalFlip(view.flip), T.ToTensor(), T.Normalize(data.mean, data.std),
    ])  # fmt: skip


class Blur:
    """Pillow's Gaussian blur with a random radius."""

    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def views_of(data: DataSpec) -> Callable[[Image.Image], list[Tensor]]:
    """A Pillow image to its views."""
    transforms = [transform(view, data) for view in data.views]
    return lambda image: [one(image) for one in transforms]


def open_rgb(path: Path) -> Image.Image:
    """An image file, read as by torchvision's ImageFolder."""
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


class Views(torch.utils.data.Dataset[list[Tensor]]):
    """The views of the image files `paths`, all `repeats` times."""

    def __init__(self, paths: list[Path], data: DataSpec, repeats: int = 1):
        self.paths, self.views = paths * repeats, [transform(view, data) for view in data.views]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = open_rgb(self.paths[index])
        return [one(image) for one in self.views]
