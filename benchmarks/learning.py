"""Does a task of `moco transfer` learn? Narrow models with random parameters on generated scenes, beside the same with
the annotations of other images. For tasks whose training takes too long for the test suite.

    python -m benchmarks.learning [cityscapes densepose c4 dc5]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moco.recipe import EncoderSpec
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.task_interface import TransferData, TransferTask
from moco.transfer.task_registry import TASKS
from tests.transfer.draw_scenes import make_scenes
from tests.transfer.learning import learn
from tests.transfer.sample_surface import write_surface
from tests.transfer.scenes_of_lvis_and_cityscapes import make_bodies, make_cityscapes

SIZE = (96, 72)  # [pixels] of the scenes, which have one object each
Made = tuple[TransferTask[Any], TransferData[Any]]


class Case(NamedTuple):
    """One task to train."""

    make: Callable[[Path], Made]
    score: str
    arch: str
    iterations: int
    changes: dict[str, Any]  # to tests.transfer.learning.SETTINGS


def cityscapes(folder: Path) -> Made:
    """150 scenes to train on, 40 to test on."""
    task = TASKS["cityscapes"]
    for seed, (split, count) in enumerate((("train", 150), ("val", 40))):
        make_cityscapes(folder, count, seed=seed, split=split, size=SIZE, most=1)
    return task, TransferData(*(task.read(folder, ReadOptions(split=one), format=None) for one in ("train", "val")))


def densepose(folder: Path) -> Made:
    """100 scenes to train on, 20 to test on, without flips."""
    write_surface(folder)
    task = TASKS["densepose"].with_body_surface(folder)
    files = [make_bodies(folder / str(i), n, seed=i, size=SIZE, most=1) for i, n in ((0, 100), (1, 20))]
    return task, TransferData(*(task.read(file, ReadOptions(), format=None) for file in files))


def detect(folder: Path) -> Made:
    """150 scenes to train on, 40 to test on."""
    task = TASKS["detect"]
    files = [make_scenes(folder / str(i), n, seed=i, size=SIZE, most=1) for i, n in ((0, 150), (1, 40))]
    return task, TransferData(*(task.read(file, ReadOptions(), format=None) for file in files))


BOTTLENECKS = {"encoder": EncoderSpec(name="resnet50", width=0.125)}
CASES = {
    "cityscapes": Case(cityscapes, "AP50_mask", "fpn", 400, {"optim.lr": 0.04}),
    "densepose": Case(densepose, "AP50_densepose", "fpn", 1500, {"optim.lr": 0.01}),
    "c4": Case(detect, "AP50", "c4", 300, BOTTLENECKS | {"optim.lr": 0.04}),
    "dc5": Case(detect, "AP50", "dc5", 300, BOTTLENECKS | {"optim.lr": 0.04}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train narrow models, with true and with shuffled annotations.")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="default: all")
    torch.set_num_threads(1)
    for name in parser.parse_args().cases or CASES:
        case = CASES[name]
        for shuffle in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                task, data = case.make(Path(folder))
                begun = time.process_time()
                scores = learn(
                    task, data, Path(folder, "run"), shuffle=shuffle, arch=case.arch, iterations=case.iterations,
                    changes=case.changes,
                )  # fmt: skip
            seconds = time.process_time() - begun
            kind = "shuffled" if shuffle else "true"
            print(
                f"{name} ({kind} annotations): {case.score} {scores[case.score]:.1f}, {seconds:.0f} s of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
