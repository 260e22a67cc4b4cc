"""P2: SIGKILL while a checkpoint is written beside training, which goes on changing the state."""

import os
import random
import signal
import struct
import time
from pathlib import Path

import torch

from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver
from tests.faults.matrix import Fault, Tally
from tests.faults.step_marked_state import SIZE, step_of

STEP = 0.0002  # [s] in which training does not hold the GIL


def training_state(step: int) -> tuple[TrainState, torch.Tensor]:
    """A state, and its tensor `x`, which is a sequence that starts at the step."""
    model = torch.nn.Module()
    model.register_buffer("x", torch.arange(SIZE) + float(step))
    model.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))
    return TrainState(model, torch.optim.SGD(model.parameters()), Clock(10, 10**9, step)), model.get_buffer("x")


def train(folder: Path, first: int, told: int) -> None:
    """Change the state in place in each step, and save it without pause. Tells which saves have begun and ended."""
    state, x = training_state(first)
    saver = Saver(RunFolder(folder), "{}", Silent(), every=1)
    while True:
        state.clock.step += 1
        x += 1.0
        saver.collect()
        if not saver.background.pending:
            os.write(told, struct.pack("qq", saver.step, state.clock.step))  # ended: all up to here; begun
            saver.save(state, must=False)
        time.sleep(STEP)


def killed(folder: Path, first: int, seconds: float) -> tuple[int, int]:
    """The last save that had ended (0: none), and the last that had begun, when the child got SIGKILL."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(folder, first, write)
        finally:
            os._exit(1)
    os.close(write)
    told = os.read(read, 16)  # the first save has begun
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(read, 65536):
        told += piece
    os.close(read)
    return struct.unpack("qq", told[-16:])


def kills_beside_training(count: int, folder: Path) -> Tally:
    """The newest that loads is the last one that had ended or begun, and has the state of its step."""
    rng, tally, step = random.Random(21), Tally(), 0
    training_state(0)  # the first optimizer imports much: once here, and not in every child
    RunFolder(folder).checkpoints.mkdir()
    RunFolder(folder).record_start()
    for _ in range(count):
        ended, begun = killed(folder, step, rng.uniform(0.002, 0.06))
        path = checkpoint.newest_intact(RunFolder(folder).checkpoints)
        found = step_of(path) if path is not None else 0
        tally += found in (max(step, ended), begun)
        step = max(step, found)
    return tally


FAULTS = [
    Fault("P2", "SIGKILL while a checkpoint is written beside training", "the newest or the one before it loads, with "
          "the state of its step",
          "the state is copied before it is written (`tests/train/test_saving.py`: steps made meanwhile are not in it)",
          500, 20, kills_beside_training),
]  # fmt: skip
