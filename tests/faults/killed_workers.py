"""P4: killed worker processes, and an image that crashes every process that reads it."""

import hashlib
import multiprocessing
import os
import random
import signal
import threading
from pathlib import Path

import torch

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import find_images
from moco.data.sources.images import Images
from tests.faults.killed_runs import RECIPE, make_images
from tests.faults.matrix import Fault, Tally

STEPS, BATCH, WORKERS = 24, 8, 2
BROKEN = 1  # the picture that make_images damages


def bits(images: Images, workers: int, quarantine: Quarantine, *, delay: float | None = None) -> str:
    """A hash of all views; after `delay` seconds a worker is killed."""
    loader = ViewLoader(
        images, RECIPE.data, batch_size=BATCH, seed=1, steps=range(STEPS), workers=workers, processes=True,
        device=torch.device("cpu"), quarantine=quarantine,
    )  # fmt: skip
    digest = hashlib.sha256()
    killer = threading.Timer(delay, kill_one) if delay is not None else None
    if killer is not None:
        killer.start()
    for batch in loader:
        for view in batch.views:
            digest.update(view.contiguous().numpy().tobytes())
        digest.update(batch.ids.numpy().tobytes())
    if killer is not None:
        killer.cancel()
    return digest.hexdigest()


def kill_one() -> None:
    children = multiprocessing.active_children()
    if children and children[-1].pid is not None:
        os.kill(children[-1].pid, signal.SIGKILL)


def killed(count: int, scratch: Path) -> Tally:
    make_images(scratch / "images", "mixed")
    images, rng, tally = find_images(scratch / "images"), random.Random(0), Tally()
    expected = bits(images, 0, Quarantine(None, None, len(images)))
    for _ in range(count):
        quarantine = Quarantine(None, None, len(images))
        same = bits(images, WORKERS, quarantine, delay=rng.uniform(0, 0.3)) == expected
        tally += same and len(quarantine) == BROKEN and not multiprocessing.active_children()
    return tally


class Deadly:
    """Images, one of which crashes the process that reads it."""

    def __init__(self, images: Images, deadly: int):
        self.names, self.labels, self.classes = images.names, images.labels, images.classes
        self.sizes, self.mtimes, self.images, self.deadly = images.sizes, images.mtimes, images, deadly

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int):
        if index == self.deadly and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.images.read(index)


def crashed(count: int, scratch: Path) -> Tally:
    make_images(scratch / "images", "mixed")
    images, rng, tally = find_images(scratch / "images"), random.Random(0), Tally()
    for _ in range(count):
        deadly = rng.randrange(1, len(images))
        quarantine = Quarantine(None, None, len(images))
        bits(Deadly(images, deadly), WORKERS, quarantine)
        tally += images.names[deadly] in quarantine.bad and len(quarantine) <= BROKEN + 1
    return tally


GUARDS = "tests/faults/test_guards.py"
FAULTS = [
    Fault(
        "P4", "a worker process killed", "it is replaced; the same bits, no image is skipped, no process is left",
        f"mini-batches are made again from the current step (`{GUARDS}`: without a replacement the run ends)",
        30, 2, killed,
    ),
    Fault(
        "P4", "an image that crashes the process that reads it", "skipped and listed after the second crash; the run "
        "goes on",
        f"each worker records which image it reads (`{GUARDS}`: if the image is not identified, the run "
        f"ends)", 10, 1, crashed,
    ),
]  # fmt: skip
