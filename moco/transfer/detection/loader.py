"""Mini-batches of annotated images for training, prefetched by threads: functions of (scenes, recipe, step) alone."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from moco.data.decode.decode import BadImage, decode
from moco.data.loader.sampler import Draw
from moco.data.loader.threads import in_order
from moco.data.sources.images import DataError
from moco.rng import fold
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.repeat import RepeatSampler, repeat_factors
from moco.transfer.detection.targets import targets, usable
from moco.transfer.models.densepose import SurfacePoints
from moco.transfer.models.flip import flip
from moco.transfer.models.resize import resize
from moco.transfer.models.sampling import Target
from moco.transfer.scenes import Scene, SceneSet
from moco.transfer.step_loader import StepLoader
from moco.transfer.task_interface import AnnotatedBatch


class SceneLoader(StepLoader):
    """The mini-batches of `steps`. Images are flipped and resized at random; (seed, epoch, image) determine how.

    Scenes without an object to train on are skipped, as in Detectron2. A mini-batch may have wide and tall images;
    Detectron2 separates them, which saves memory.

    Args:
        mirror_body: mirrors the points on bodies, in images that are flipped.

    Raises:
        DataError: no scene has an object to train on; while iterating, an image that cannot be read.
        ValueError: see StepSampler.
    """

    def __init__(
        self,
        scenes: SceneSet,
        recipe: DetectionRecipe,
        *,
        steps: range,
        workers: int,
        mirror_body: Callable[[SurfacePoints], SurfacePoints] | None = None,
    ) -> None:
        self.scenes, self.recipe, self.mirror_body = scenes, recipe, mirror_body
        labels = [scene.objects.labels[usable(scene)] for scene in scenes.scenes]
        self.chosen = np.array([i for i, one in enumerate(labels) if len(one)], dtype=np.int64)
        if not len(self.chosen):
            raise DataError(f"none of the {len(scenes)} training images has an object to train on: annotate some")
        super().__init__(len(self.chosen), recipe, steps=steps, workers=workers)
        if recipe.repeat is not None:
            factors = repeat_factors([labels[i] for i in self.chosen], recipe.repeat)
            self.sampler = RepeatSampler(factors, self.plain)

    def make(self, drawn: Draw, stopped: Event) -> AnnotatedBatch:
        turns, places = np.divmod(drawn.ids, len(self.chosen))
        ids = self.chosen[places]
        pairs = [
            self._read(drawn.epoch, *one)
            for one in zip(ids.tolist(), turns.tolist(), strict=True) if not stopped.is_set()
        ]  # fmt: skip
        return AnnotatedBatch(([image for image, _ in pairs], [target for _, target in pairs]), torch.from_numpy(ids))

    def _read(self, epoch: int, number: int, turn: int) -> tuple[UInt8[Tensor, "3 _ _"], Target]:
        """Scene `number`, flipped and resized, differently for each `turn` (its repetition in the epoch)."""
        place = (epoch, number, turn) if turn else (epoch, number)
        sizes, rng = self.recipe.sizes, np.random.default_rng(fold(self.recipe.seed, *place))
        scene = self.scenes.scenes[number]
        image, target = read_image(scene), targets(scene)
        if rng.random() < sizes.flip:
            image, target = flip(image, target, self.scenes.keypoint_names, self.mirror_body)
        shorter = sizes.shorter[int(rng.integers(len(sizes.shorter)))]
        resized, scaled = resize(image, target, shorter=shorter, longest=sizes.longest)
        assert scaled is not None
        return resized, scaled


def read_image(scene: Scene) -> UInt8[Tensor, "3 h w"]:
    """The pixels of a scene. Raises DataError if it cannot be read, or its size is not that of the annotations."""
    try:
        pixels = decode(scene.path)
    except BadImage as bad:
        raise DataError(f"{bad}: repair the image, or remove its annotations") from bad
    height, width = pixels.shape[:2]
    if scene.width is not None and (width, height) != (scene.width, scene.height):
        raise DataError(
            f"{scene.path} has {width} x {height} pixels, and its annotations are for {scene.width} x {scene.height}: "
            "annotate this image, or put the annotated one back"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def eval_images(
    scenes: Sequence[Scene], recipe: DetectionRecipe, *, workers: int
) -> Iterator[tuple[UInt8[Tensor, "3 H W"], tuple[int, int]]]:
    """Every image once and in order, resized for evaluation, with its own (height, width)."""

    def make(scene: Scene, stopped: Event) -> tuple[Tensor, tuple[int, int]]:
        image = read_image(scene)
        resized, _ = resize(image, None, shorter=recipe.sizes.eval_shorter, longest=recipe.sizes.longest)
        return resized, (image.shape[1], image.shape[2])

    yield from in_order(make, scenes, workers=workers)
