"""The pictures of a run's report: from a run that has just finished, or from its folder and its images."""

from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from moco.data.sources.images import Images
from moco.data.sources.open import Sources, open_images
from moco.device import pick_device, workers_for
from moco.encoders import Encoder
from moco.evaluate.features import load_pretrained
from moco.recipe import DataSpec
from moco.report.picture_sections import PagePictures, page_pictures
from moco.report.sample import SECONDS, VIEW_SECONDS, ImageSample, take_sample, take_views
from moco.train.restore_networks import find_intact_steps, restore_networks
from moco.train.resume import get_trained_encoder
from moco.train.run_folder import RunError, RunFolder


class RunImages:
    """The images of a run and its encoder. They are read when a picture needs them, once for all pictures.

    Args:
        patience: how many times as long reading may take as at the end of a run.
    """

    def __init__(
        self, images: Images, encoder: Encoder, data: DataSpec, *, step: int, device: torch.device, workers: int,
        processes: bool = False, patience: float = 1.0,
    ):  # fmt: skip
        self.images, self.encoder, self.data, self.step = images, encoder, data, step
        self.device, self.workers, self.processes, self.patience = device, workers, processes, patience

    @cached_property
    def sample(self) -> ImageSample:
        return take_sample(
            self.images, self.encoder, self.data, device=self.device, workers=self.workers,
            seconds=SECONDS * self.patience,
        )  # fmt: skip

    def page_pictures(self) -> PagePictures:
        """Raises DataError if fewer than two images can be read."""
        views = take_views(
            self.sample, self.images, self.encoder, self.data, device=self.device, workers=self.workers,
            processes=self.processes, seconds=VIEW_SECONDS * self.patience,
        )  # fmt: skip
        return page_pictures(self.sample, views, step=self.step)


def images_of_run(
    path: Path, data: Sources, *, model: nn.Module | None = None, device: str = "auto", workers: int | None = None,
    patience: float = 1.0,
) -> RunImages:  # fmt: skip
    """The images `data`, and the encoder of a finished run or of its newest intact checkpoint.

    Args:
        model: the module of a run with a backbone of your own.
        patience: see `RunImages`.

    Raises:
        RunError: no run, or one without a checkpoint. DataError: no images. CheckpointError: all are damaged.
    """
    run, place = RunFolder(path), pick_device(device)
    recipe, images = run.recipe(), open_images(data)
    step = max((one.get("step", 0) for one in run.metrics()), default=0)
    if run.finished:
        encoder = load_pretrained(path, model=model, device=place).encoder
    else:
        steps = find_intact_steps(run, count=1)
        if not steps:
            raise RunError(f"{path} has no checkpoint yet, so there is no encoder for pictures: leave --data out")
        step = steps[0]
        encoder = get_trained_encoder(
            restore_networks(run, recipe, place, num_images=len(images), step=step, model=model)
        )
    return RunImages(
        images, encoder, recipe.data, step=step, device=place, workers=workers_for(workers), patience=patience
    )  # fmt: skip
