"""Algorithm 1."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from moco.distributed import rank, unsynchronized
from moco.method import Contrast
from moco.rng import fold
from moco.schedule import Schedule
from moco.train.checkpoint import TrainState
from moco.train.nan_guard import Gate

Batches = Iterable[tuple[list[Tensor], Tensor]]  # views N x 3 x S x S of the queries and of the keys; image ids N
AfterStep = Callable[[TrainState, dict[str, Tensor]], None]


def train(
    model: nn.Module,
    state: TrainState,
    batches: Batches,
    *,
    lr: Schedule,
    m: Schedule,
    seed: int,
    after_step: AfterStep,
    gate: Gate | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Algorithm 1. `model` is state.model, wrapped in DDP or not; `batches` start at the clock's step.

    Args:
        lr, m: the learning rate, and the momentum of Eqn. (2), by epoch.
        seed: of the run; what is drawn in a step depends on it and on the step only.
        after_step: called with the state and the step's metrics (tensors, so that nothing waits for the device).
        gate: what becomes of a step with a NaN in it; None: it raises Diverged.
        precision: makes the autocast context of the encoders.
    """
    contrast, optimizer, clock, scaler = state.model, state.optimizer, state.clock, state.scaler
    assert isinstance(contrast, Contrast)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(scaler, torch.amp.GradScaler)
    gate = gate or Gate(state)
    for views, ids in batches:
        rng = torch.Generator().manual_seed(fold(seed, clock.step))  # the same on every rank
        torch.manual_seed(fold(seed, clock.step, rank()))  # for layers that draw by themselves: dropout, drop path
        rate = lr(clock.epoch, clock.epochs)

        gate.remember()
        optimizer.zero_grad(set_to_none=True)
        with precision():
            parts = contrast.parts(views, ids, rng)  # keys first
        answers = []
        for part in parts:
            with nullcontext() if part is parts[-1] else unsynchronized(model):  # gradients meet once a step
                with precision():
                    answer = model(part, rng)  # Eqn. (1)
                scaler.scale(answer.loss).backward()
            answers.append(answer)
        loss = torch.stack([answer.loss.detach() for answer in answers]).sum()
        keys, owners = torch.cat([answer.k for answer in answers]), torch.cat([part.ids for part in parts])

        finite = gate.admits(loss, keys, ids)
        clock.step += 1  # the momentum update is the one that the next step's keys are made with
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = rate
            scaler.step(optimizer)  # SGD update: query network
            scaler.update()
            contrast.follow(m(clock.epoch, clock.epochs))  # momentum update: key network, Eqn. (2)
            contrast.dictionary.update(keys, owners, clock.step)  # enqueue, dequeue
            gate.settle()
        after_step(state, {"loss": loss, "pretext_top1": torch.stack([answer.top1 for answer in answers]).mean()})
