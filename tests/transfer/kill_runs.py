"""Kill fine-tuning runs after a step, and compare the models of two runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moco.transfer import fine_tune


class Killed(Exception):
    """A run was killed by `killed_where`."""


@contextmanager
def killed_where(dies: Callable[[int], bool]) -> Iterator[None]:
    """Within this context, a fine-tuning run raises Killed after each step for which `dies` is true."""
    finish_step = fine_tune.AfterStep.__call__

    def finish_step_or_die(self, state, metrics):
        finish_step(self, state, metrics)
        if dies(state.clock.step):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune.AfterStep, "__call__", finish_step_or_die)
        yield


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The fine-tuning run within this context must die after `step`."""
    with killed_where(lambda done: done == step), pytest.raises(Killed):
        yield


def have_equal_models(*runs: Path) -> bool:
    """Whether the models of two runs are equal in all bits."""
    a, b = (load_file(run / "model" / "model.safetensors") for run in runs)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
