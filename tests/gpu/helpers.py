"""Runs of a few steps on a device, on mini-batches that are the same on every device."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moco.method import Contrast
from moco.recipe import Recipe
from moco.schedule import Constant
from moco.train.build import contrast_for, in_format, precision_of, scaler_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.nan_guard import NanGuard
from moco.train.optim import optimizer_for
from tests.train.fake_gpu import N

CPU = torch.device("cpu")
GPU = pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])


def needs_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that runs on a GPU only."""
    for mark in GPU:
        test = mark(test)
    return test


def state_on(device: torch.device, recipe: Recipe, dtype: torch.dtype = torch.float32) -> TrainState:
    """The state of a run before its first step: the same weights, queue and bank on every device."""
    contrast = contrast_for(recipe, CPU, num_images=50, model=None, init=None, say=lambda _: None).to(device, dtype)
    return TrainState(contrast, optimizer_for(contrast, recipe.optim), Clock(5, 1000), scaler_for(recipe, device))


def batches(
    steps: range, device: torch.device, dtype: torch.dtype = torch.float32, bad: int | None = None
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Mini-batches of noise; a pixel of each view in that of step `bad` is NaN."""
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        views = [torch.randn(N, 3, 32, 32, generator=rng, dtype=torch.float64) for _ in range(2)]
        if step == bad:
            views[0][3, 0, 5, 5] = views[1][3, 0, 5, 5] = float("nan")
        yield [view.to(device, dtype) for view in views], ((torch.arange(N) + N * step) % 50).to(device)


def run(state: TrainState, recipe: Recipe, steps: range, **options: Any) -> list[float]:
    """Train for some steps, and return their losses."""
    return [float(loss) for loss in run_unread(state, recipe, steps, **options)]


def run_unread(
    state: TrainState,
    recipe: Recipe,
    steps: range,
    *,
    bad: int | None = None,
    guard: NanGuard | None = None,
    lr: float = 0.01,
    after_step: Callable[..., None] = lambda *_: None,
) -> list[Tensor]:
    """As `run`; the losses stay on the device. All mini-batches are there before the first step."""
    contrast = state.model
    assert isinstance(contrast, Contrast)
    one = next(contrast.parameters())
    losses: list[Tensor] = []

    def note(state: TrainState, metrics: dict[str, Tensor]) -> None:
        losses.append(metrics["loss"])
        after_step(state, metrics)

    state.clock.step = steps.start
    made = list(batches(steps, one.device, one.dtype, bad))
    train(
        contrast, state, in_format(made, recipe), lr=Constant(lr),
        m=Constant(0.9), seed=0, after_step=note, guard=guard, precision=precision_of(recipe, one.device),
    )  # fmt: skip
    return losses


def difference(one: TrainState, other: TrainState) -> float:
    """The largest relative difference of a tensor of the two models: |a - b| / |b|."""
    a, b = (state.model.state_dict() for state in (one, other))  # pyright: ignore[reportAttributeAccessIssue]
    return max(
        float((a[name].cpu().double() - b[name].cpu().double()).norm() / b[name].cpu().double().norm().clamp(min=1e-12))
        for name in b
        if b[name].is_floating_point()
    )
