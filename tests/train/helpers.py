"""What tests of runs share: a run that a signal stops at a step, and its final state."""

import os
import signal

import pytest
import torch

from moco.train import checkpoint
from moco.train.after_step import Stopped
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder


class StopAt(Silent):
    """Sends this process a signal when the run shows the given step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def live(self, *parts: str) -> None:
        if f"step {self.step}" in parts:
            os.kill(os.getpid(), self.number)


def stop(pictures, out, recipe):
    """Start a run in `out` that a signal stops at step 4, with checkpoints of steps 2 and 4. Returns `out`."""
    with pytest.raises(Stopped):
        pretrain(pictures, out, recipe=recipe, save_every=2, reporter=StopAt(4))
    return out


def files(folder) -> dict[str, bytes]:
    """The content of each file below a folder, by its path."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Messages(Silent):
    """Collects the messages of a run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def final_state(out) -> dict:
    return checkpoint.read_checkpoint(checkpoint.newest_intact(out / "checkpoints"))["state"]


def assert_same(a, b, where="state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{where}.{i}")
    else:
        assert a == b, where


def losses(out) -> list:
    return [(record["step"], record["loss"]) for record in RunFolder(out).metrics() if "loss" in record]
