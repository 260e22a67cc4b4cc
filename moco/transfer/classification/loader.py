"""Mini-batches of random crops with their classes. Each depends on (images, recipe, step) alone."""

from threading import Event

import numpy as np
import torch
from jaxtyping import UInt8

from moco.data.augment import cpu
from moco.data.augment.kernel_loading import load_kernels
from moco.data.augment.random_parameters import random_numbers
from moco.data.decode.decode import BadImage
from moco.data.loader.sampler import Draw
from moco.data.loader.threads import Abandoned
from moco.data.sources.images import DataError, Images
from moco.rng import fold
from moco.transfer.classification.rand_augment import RandAugment
from moco.transfer.classification.recipe import ClassificationRecipe
from moco.transfer.step_loader import StepLoader
from moco.transfer.task_interface import AnnotatedBatch

AFTER_CROPS = 1  # in the seed of RandAugment's random numbers


class ImageLoader(StepLoader):
    """Mini-batches of crops and labels. Crops are bytes N x 3 x S x S in channels_last; the model normalizes them.

    They are cropped like the views of pre-training, and changed by RandAugment, if the recipe has it. (seed, epoch,
    image) determine how.

    Raises:
        DataError: while iterating, an image that cannot be read. ValueError: see StepSampler.
    """

    def __init__(self, images: Images, recipe: ClassificationRecipe, *, steps: range, workers: int) -> None:
        super().__init__(len(images), recipe, steps=steps, workers=workers)
        assert images.labels is not None
        self.images, self.labels = images, torch.from_numpy(images.labels)
        self.seed, self.data = recipe.seed, recipe.data_spec
        magnitude = recipe.augment.rand_augment
        self.change = RandAugment(magnitude, size=self.data.size, mean=recipe.mean) if magnitude else None
        load_kernels()

    def make(self, drawn: Draw, stopped: Event) -> AnnotatedBatch:
        numbers = random_numbers(self.seed, drawn.epoch, ids=drawn.ids, view_index=0)
        views = [cpu.DrawnView(self.data.views[0], numbers)]
        crops = np.empty((len(drawn.ids), self.data.size, self.data.size, 3), np.uint8)
        for row, index in enumerate(drawn.ids.tolist()):
            if stopped.is_set():
                raise Abandoned
            cpu.write_views(self._read(index), views, row, [crops], coloured=False)
            if self.change is not None:
                rng = np.random.default_rng(fold(self.seed, drawn.epoch, index, AFTER_CROPS))
                crops[row] = self.change(crops[row], rng)
        ids = torch.from_numpy(drawn.ids)
        return AnnotatedBatch((torch.from_numpy(crops).permute(0, 3, 1, 2), self.labels[ids]), ids)

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return self.images.read(index)
        except BadImage as bad:
            raise DataError(f"{bad}: repair it, or remove it from the data set") from bad
