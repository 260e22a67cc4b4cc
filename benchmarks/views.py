"""Two views of an image, small ones in memory and decoded photos, against torchvision's transforms on Pillow."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as T

from benchmarks.measure import Result, compare
from moco.data import augment
from moco.recipe import View
from moco.recipes import VIEWS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference(view: View, size: int) -> T.Compose:
    """The published transforms with the view's numbers."""
    jitter = view.jitter
    change = T.RandomApply(
        [T.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)], p=jitter.p
    )
    colours = [T.RandomGrayscale(view.grey), change] if view.grey_first else [change, T.RandomGrayscale(view.grey)]
    blur = [T.RandomApply([_Blur(view.blur_sigma)], p=view.blur)] if view.blur else []
    crop = T.RandomResizedCrop(size, scale=view.crop_area)
    return T.Compose([crop, *colours, *blur, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])


class _Blur:
    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def textures(n: int, height: int, width: int) -> np.ndarray:
    """Pictures with the coarse and fine structure of photos: n x height x width x 3, uint8."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)) for _ in range(n)]
    smooth = np.stack([np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in coarse])
    return np.clip(smooth.astype(int) + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def finish(crops: torch.Tensor, view: View, dice: augment.Dice) -> torch.Tensor:
    return augment.normalize(augment.colour(crops, augment.look(view, dice)), mean=MEAN, std=STD)


def small(rounds: int, n: int = 256) -> Iterator[Result]:
    """32 x 32 images in memory, a mini-batch in one call."""
    pixels = textures(n, 32, 32)
    tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    view, sides, ids = VIEWS["cifar"], np.full(n, 32), np.arange(n)
    pillow, transform = [Image.fromarray(one) for one in pixels], reference(view, 32)

    def ours() -> None:
        for index in range(2):
            dice = augment.cast(0, 0, ids=ids, view_index=index)
            boxes = augment.crop_boxes(view, dice, heights=sides, widths=sides)
            finish(augment.crop_batch(tensors, boxes, flips=augment.flips(view, dice), size=32), view, dice)

    def theirs() -> None:
        torch.stack([transform(image) for image in pillow for _ in range(2)])

    yield compare(f"views/cifar/32x32/{n} images", ours, theirs, against="torchvision on Pillow", rounds=rounds)


def photos(rounds: int, n: int = 8) -> Iterator[Result]:
    """Decoded 375 x 500 photos to 224."""
    pixels = textures(n, 375, 500)
    pillow, ids = [Image.fromarray(one) for one in pixels], np.arange(n)
    for name in ("moco_v1", "moco_v2"):
        view, transform = VIEWS[name], reference(VIEWS[name], 224)

        def ours(view: View = view) -> None:
            for index in range(2):
                dice = augment.cast(0, 0, ids=ids, view_index=index)
                boxes = augment.crop_boxes(view, dice, heights=np.full(n, 375), widths=np.full(n, 500))
                mirrored = augment.flips(view, dice)
                crops = [augment.crop(pixels[i], boxes[i], flip=bool(mirrored[i]), size=224) for i in range(n)]
                finish(torch.from_numpy(np.stack(crops)), view, dice)

        def theirs(transform: T.Compose = transform) -> None:
            torch.stack([transform(image) for image in pillow for _ in range(2)])

        yield compare(f"views/{name}/224/{n} images", ours, theirs, against="torchvision on Pillow", rounds=rounds)
