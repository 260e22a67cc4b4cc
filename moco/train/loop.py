"""Algorithm 1.

The random numbers of a step depend only on the run's seed and on the step. Metrics are tensors, so that the host does
not wait for the device. The NaN guard discards a step that is not finite; the default guard raises Diverged.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from moco.distributed import rank
from moco.method import Contrast
from moco.rng import fold
from moco.schedule import Schedule
from moco.train.checkpoint import TrainState
from moco.train.ddp import skip_gradient_sync
from moco.train.nan_guard import NanGuard

Batches = Iterable[tuple[list[Tensor], Tensor]]  # views N x 3 x S x S of the queries and of the keys; image ids N
StepCallback = Callable[[TrainState, dict[str, Tensor]], None]


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed torch for a step, differently on each rank: for dropout, drop path and the like.

    Returns a CPU generator with the same state on every rank: for Shuffling BN and draws from a memory bank.
    """
    torch.manual_seed(fold(seed, step, rank()))
    return make_shared_generator(seed, step)


def make_shared_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator with the same state on every rank, before any number of the step is drawn from it."""
    return torch.Generator().manual_seed(fold(seed, step))


def train(
    model: nn.Module,
    state: TrainState,
    batches: Batches,
    *,
    lr: Schedule,
    m: Schedule,
    seed: int,
    after_step: StepCallback,
    guard: NanGuard | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Algorithm 1, from the clock's step on. `model` is state.model, in DDP or not; `m` is the momentum of Eqn. (2)."""
    contrast, optimizer, clock, scaler = state.model, state.optimizer, state.clock, state.scaler
    assert isinstance(contrast, Contrast)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(scaler, torch.amp.GradScaler)
    guard = guard or NanGuard(state)
    for views, ids in batches:
        rng = seed_step(seed, clock.step)
        rate = lr(clock.epoch, clock.epochs)

        guard.remember()
        optimizer.zero_grad(set_to_none=True)
        with precision():
            parts = contrast.parts(views, ids, rng)  # keys first
        answers = []
        for part in parts:
            with (
                nullcontext() if part is parts[-1] else skip_gradient_sync(model)
            ):  # averaged over the ranks once a step
                with precision():
                    answer = model(part, rng)  # Eqn. (1)
                scaler.scale(answer.loss).backward()
            answers.append(answer)
        loss = torch.stack([answer.loss.detach() for answer in answers]).sum()
        keys, key_ids = torch.cat([answer.k for answer in answers]), torch.cat([answer.ids for answer in answers])

        finite = guard.check_step(loss, keys, ids)
        clock.step += 1  # m and enqueue below belong to the next step's keys
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = rate
            scaler.step(optimizer)  # SGD update: query network
            scaler.update()
            contrast.follow(m(clock.epoch, clock.epochs))  # momentum update: key network, Eqn. (2)
            contrast.dictionary.update(keys, key_ids, clock.step)  # enqueue, dequeue
            guard.undo_if_not_finite()
        after_step(state, {"loss": loss, "pretext_top1": torch.stack([answer.top1 for answer in answers]).mean()})
