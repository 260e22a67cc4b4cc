"""Images with a class for each pixel: random crops for training, prefetched by threads; whole images for evaluation."""

from collections.abc import Iterator
from threading import Event

import numpy as np
import torch
from jaxtyping import UInt8

from moco.data.decode.decode import BadImage, decode
from moco.data.loader.sampler import Draw
from moco.data.loader.threads import in_order
from moco.data.sources.images import DataError
from moco.rng import fold
from moco.transfer.segmentation.crop import crop_with_labels, draw_window
from moco.transfer.segmentation.recipe import SegmentationRecipe
from moco.transfer.semantic import SemanticSet
from moco.transfer.step_loader import StepLoader
from moco.transfer.task_interface import AnnotatedBatch

Pair = tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]


class CropLoader(StepLoader):
    """The mini-batches of `steps`. Images are cropped at random; (seed, epoch, image) determine how.

    Raises:
        ValueError: see StepSampler. While iterating, DataError: an image or a label file that cannot be read.
    """

    def __init__(self, scenes: SemanticSet, recipe: SegmentationRecipe, *, steps: range, workers: int) -> None:
        super().__init__(len(scenes), recipe, steps=steps, workers=workers)
        self.scenes, self.recipe = scenes, recipe
        red, green, blue = (round(255 * value) for value in recipe.mean)
        self.colour = (red, green, blue)

    def make(self, drawn: Draw, stopped: Event) -> AnnotatedBatch:
        pairs = [self._read(drawn.epoch, int(number)) for number in drawn.ids if not stopped.is_set()]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return AnnotatedBatch((images.permute(0, 3, 1, 2).contiguous(), labels), torch.from_numpy(drawn.ids))

    def _read(self, epoch: int, number: int) -> Pair:
        rng, spec = np.random.default_rng(fold(self.recipe.seed, epoch, number)), self.recipe.crops
        image, labels = read_pair(self.scenes, number)
        window = draw_window(labels.shape[1], labels.shape[0], spec, rng)
        return crop_with_labels(image, labels, window, side=spec.side, colour=self.colour)


def read_pair(scenes: SemanticSet, number: int) -> Pair:
    """An image and the class of each of its pixels. Raises DataError: a file that cannot be read."""
    try:
        image = decode(scenes.scenes[number].path)
    except BadImage as bad:
        raise DataError(f"{bad}: repair the image, or remove it and its labels") from bad
    return image, scenes.read_labels(number)  # which checks that both have the same size


def eval_pairs(scenes: SemanticSet, *, workers: int) -> Iterator[Pair]:
    """Every image once, in order and at its own size, with its labels. Workers prefetch some."""

    def make(number: int, stopped: Event) -> Pair:
        return read_pair(scenes, number)

    yield from in_order(make, range(len(scenes)), workers=workers, ahead=1)
