"""I9: a user's data set that seeks and reads in one open file, so that two threads must not read it at once."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import DataError
from moco.data.sources.open import open_images
from tests.faults.killed_runs import RECIPE
from tests.faults.matrix import Fault, Tally

COUNT, SHAPE = 40, (20, 24, 3)
BYTES = 20 * 24 * 3  # of an image


class Records:
    """Images in one open file. `reopens`: each copy opens it again."""

    def __init__(self, path: Path, reopens: bool):
        self.path, self.reopens, self.file = path, reopens, path.open("rb", buffering=0)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.file.seek(index * BYTES)
        time.sleep(random.uniform(0, 0.0005))
        return {"image": np.frombuffer(self.file.read(BYTES), dtype=np.uint8).reshape(SHAPE), "label": index % 2}

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        return state | {"file": None} if self.reopens else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["reopens"])


def views_of(data: Any, **options: Any) -> list[torch.Tensor]:
    """All views of some mini-batches."""
    images = open_images(data)
    loader = ViewLoader(
        images, RECIPE.data, batch_size=8, seed=1, steps=range(8), device=torch.device("cpu"),
        quarantine=Quarantine(None, 0, COUNT), **options,
    )  # fmt: skip
    return [view.clone() for batch in loader for view in batch.views]


def one_file(count: int, scratch: Path) -> Tally:
    """Threads, processes whose copies open the file again, and processes that would share it, in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
    (scratch / "images.raw").write_bytes(pixels.tobytes())
    expected, tally = views_of(pixels, workers=0), Tally()
    for number in range(count):
        processes, reopens = number % 4 > 1, number % 4 != 3
        try:
            found = views_of(
                Records(scratch / "images.raw", reopens), workers=2 + number % 3, processes=processes
            )  # fmt: skip
        except DataError as error:
            tally += not reopens and "needs a copy" in str(error)
        else:
            tally += reopens and all(map(torch.equal, found, expected))
    return tally


FAULTS = [
    Fault(
        "I9", "a user's data set that seeks and reads in one open file", "every image is read correctly with any "
        "number of threads; processes that would share the file are refused",
        "one thread at a time reads it; each process gets a copy (`tests/faults/test_guards_of_readers.py`: without "
        "that, images are mixed up)", 40, 4, one_file,
    ),
]  # fmt: skip
