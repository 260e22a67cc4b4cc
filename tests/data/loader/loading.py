"""What the tests of the loader share: a small loader, broken images, and the views that it must make."""

import threading
import time
from pathlib import Path

import numpy as np
import torch

from moco.data.augment.colour import colour
from moco.data.augment.crop import crop
from moco.data.augment.normalize import normalize
from moco.data.augment.random_parameters import crop_boxes, flips, look, random_numbers
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewBatch, ViewLoader
from moco.data.sources.folder import Folder
from moco.data.sources.images import Images
from moco.recipe import DataSpec, Jitter, View

CPU = torch.device("cpu")
STRONG = View(crop_area=(0.3, 1.4), jitter=Jitter(), grey=0.2, blur=0.5, solarize=0.2)
DATA = DataSpec(size=16, eval_resize=16, views=(STRONG, View(blur=0.3)))
SEED = 7


def no_limit(images: Images, file: Path | None = None) -> Quarantine:
    return Quarantine(file, len(images), len(images))


def loader(images: Images, **options) -> ViewLoader:
    settings = {"batch_size": 8, "seed": SEED, "steps": range(6), "workers": 0, "device": CPU} | options
    settings.setdefault("quarantine", no_limit(images))
    return ViewLoader(images, DATA, **settings)


def same(one: list[ViewBatch], other: list[ViewBatch]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(a.ids, b.ids) and all(map(torch.equal, a.views, b.views)) for a, b in zip(one, other, strict=True)
    )


def spoil(images: Folder, *indices: int) -> list[str]:
    """Break the files of some images. Returns their names."""
    for index in indices:
        Path(images.path(index)).write_bytes(b"broken")
    return [images.names[index] for index in indices]


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("moco-data")]


class CountingImages:
    """Images whose reads are listed, delayed, or fail with `fails` after some."""

    def __init__(self, images: Images, *, delay: float = 0.0, fails: type[BaseException] | None = None, after: int = 0):
        self.names, self.labels, self.classes = images.names, images.labels, images.classes
        self.sizes, self.mtimes = images.sizes, images.mtimes
        self.images, self.delay, self.fails, self.after, self.reads = images, delay, fails, after, []

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int):
        time.sleep(self.delay)
        self.reads.append(index)
        if self.fails and len(self.reads) > self.after:
            raise self.fails("out of luck")
        return self.images.read(index)


def view_of(image: np.ndarray, step_epoch: int, place: int, index: int) -> torch.Tensor:
    """View `index` of an image, made without kernels, with the random numbers of image `place`."""
    view = DATA.views[index]
    numbers = random_numbers(SEED, step_epoch, ids=np.array([place]), view_index=index)
    boxes = crop_boxes(view, numbers, heights=np.array(image.shape[:1]), widths=np.array(image.shape[1:2]))
    cropped = crop(image, boxes[0], flip=bool(flips(view, numbers)[0]), size=DATA.size)
    colours = colour(torch.from_numpy(cropped)[None], look(view, numbers))
    return normalize(colours, mean=DATA.mean, std=DATA.std)[0]
