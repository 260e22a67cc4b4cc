"""N1: a loss, a gradient or a key that is not finite, at any step of a run."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from moco.method import Contrast
from moco.train import checkpoint
from moco.train.nan_guard import Diverged, NanGuard
from moco.train.pretrain import pretrain
from tests.faults.killed_runs import RECIPE, ending, make_images, state_hash
from tests.faults.matrix import Fault, Tally

STEPS = 18
VALUES = (float("nan"), float("inf"), float("-inf"))


@contextmanager
def injected(part: str, step: int, value: float) -> Iterator[None]:
    """While open, `part` of the run's step is not finite, once."""
    forward, encode, remember = Contrast.forward, Contrast.encode_keys, NanGuard.remember
    now = {"step": -1, "done": False}

    def counting(self):
        now["step"] = self.state.clock.step
        if part == "gradient" and now["step"] == step and not now["done"]:
            now["done"] = True
            parameter = self.trained[step % len(self.trained)]
            hook = parameter.register_hook(lambda grad: (hook.remove(), torch.full_like(grad, value))[1])
        remember(self)

    def of_loss(self, one, rng):
        answer = forward(self, one, rng)
        if part == "loss" and now["step"] == step and not now["done"]:
            now["done"] = True
            return answer._replace(loss=answer.loss * value)
        return answer

    def of_keys(self, x, rng):
        k = encode(self, x, rng)
        if part == "keys" and now["step"] == step and not now["done"]:
            now["done"] = True
            k[step % len(k), 0] = value
        return k

    with (
        mock.patch.object(NanGuard, "remember", counting), mock.patch.object(Contrast, "forward", of_loss),
        mock.patch.object(Contrast, "encode_keys", of_keys),
    ):  # fmt: skip
        yield


def run(images: Path, out: Path, **options) -> None:
    pretrain(images, out, recipe=RECIPE, workers=0, device="cpu", eval_data=images, eval_every=1, **options)


def intact(images: Path, out: Path, whole: Path, part: str, step: int, value: float) -> bool:
    """Whether the run stops with the state before the step, and resumes to the bits of the undisturbed one."""
    try:
        with injected(part, step, value):
            run(images, out, save_every=5)
        return False
    except Diverged as error:
        if f"step {step + 1}" not in str(error) or part not in str(error):
            return False
    place = out / "nan" / f"step_{step:08d}"
    facts, before = json.loads((place / "facts.json").read_text()), whole / "checkpoints" / f"step_{step:08d}.pt"
    if facts["step"] != step or len(facts["images"]) != 8 or len(facts["losses"]) != step + 1:
        return False
    same = state_hash(checkpoint.read_checkpoint(place / "checkpoint.pt")) == (
        state_hash(checkpoint.read_checkpoint(before))
    )
    run(images, out, save_every=5)
    return same and ending(out) == ending(whole)


def not_finite(count: int, folder: Path) -> Tally:
    """Loss, gradient and keys in turn, at random steps but the first, whose state before it no reference run has."""
    rng, tally = random.Random(1), Tally()
    images, whole = folder / "images", folder / "whole"
    make_images(images, "small")
    run(images, whole, save_every=1, keep=STEPS)
    for trial in range(count):
        part = ("loss", "gradient", "keys")[trial % 3]
        good = intact(images, folder / f"run{trial}", whole, part, rng.randrange(1, STEPS), rng.choice(VALUES))
        tally += good
    return tally


FAULTS = [
    Fault(
        "N1", "NaN or infinity in loss, gradient or keys", "the run stops; its state is the one before the step, bit "
        "for bit",
        "loss, gradient and keys are checked before the update (`tests/train/test_nan_guard.py`: without the check NaN "
        "enters the queue; without the copies, BN's statistics)",
        60, 6, not_finite,
    ),
]  # fmt: skip
