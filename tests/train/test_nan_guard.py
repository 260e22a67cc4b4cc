"""The NaN guard: a step that is not finite changes nothing."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from run_ranks import on_ranks
from torch import Tensor

from moco.distributed import rank
from moco.method import Contrast
from moco.recipe import Recipe
from moco.schedule import Constant
from moco.train import nan_guard
from moco.train.build import contrast_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.ddp import wrap
from moco.train.loop import train
from moco.train.nan_guard import DiscardedStep, Diverged, NanGuard
from moco.train.optim import optimizer_for
from tests.train.fake_gpu import fake, needs_fake_gpu
from tests.train.families import of_family
from tests.train.helpers import assert_same

CPU, NAN = torch.device("cpu"), float("nan")

METHODS = [
    "MoCo", "end-to-end", "end-to-end, second encoder", "end-to-end with a ViT", "end-to-end, in pieces", "memory bank",
    "memory bank, NCE", "v3", "v3 with a ViT",
]  # fmt: skip


def make_state(recipe: Recipe, *, scaler: torch.amp.GradScaler | None = None) -> TrainState:
    contrast = contrast_for(recipe, CPU, num_images=40, model=None, init=None, say=lambda _: None)
    optimizer = optimizer_for(contrast, recipe.optim)
    state = TrainState(contrast, optimizer, Clock(5, 10))
    return state if scaler is None else TrainState(contrast, optimizer, state.clock, scaler)


def batches(steps: range, bad: int | None = None) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Mini-batches of noise; in that of step `bad` a pixel of each view is NaN: it reaches loss, keys and gradient."""
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        views = [torch.randn(8, 3, 16, 16, generator=rng) for _ in range(2)]
        if step == bad:
            views[0][3, 0, 5, 5] = views[1][3, 0, 5, 5] = NAN
        yield views, torch.arange(8) + 4 * step


def train_steps(
    state: TrainState, steps: range, *, bad: int | None = None, guard: NanGuard | None = None, lr: float = 0.1
) -> None:
    state.clock.step = steps.start
    train(
        state.model, state, batches(steps, bad), lr=Constant(lr), m=Constant(0.9), seed=0, guard=guard,
        after_step=lambda *_: None,
    )  # fmt: skip


def copy_of_state(state: TrainState) -> dict:
    return copy.deepcopy(state.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_changes_no_bit_of_the_state(tiny, method):
    state = make_state(of_family(tiny, method))
    train_steps(state, range(3))
    before = copy_of_state(state)
    with pytest.raises(Diverged, match="not finite at step 4: loss, keys, gradient"):
        train_steps(state, range(3, 4), bad=3)
    assert_same(copy_of_state(state), before)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_changes_no_bit_if_its_flag_is_read_a_step_later(tiny, method):
    """As on a GPU: the next step ends before the host reads the flag."""
    state = make_state(of_family(tiny, method))
    train_steps(state, range(3))
    before, discarded_steps = copy_of_state(state), []

    def on_discard(discarded: DiscardedStep) -> None:
        state.clock.step = discarded.step
        discarded_steps.append(discarded.step)
        raise Diverged(str(discarded))

    guard = NanGuard(state, on_discard=on_discard, late=True)
    assert guard.late == (method != "v3")  # LARS cannot skip a step by a flag
    with pytest.raises(Diverged):
        train_steps(state, range(3, 6), bad=3, guard=guard)
    after = copy_of_state(state)
    for one in (before, after):  # a function of the clock
        one["optimizer"]["param_groups"][0].pop("lr")
    assert discarded_steps == [3]
    assert_same(after, before)


@pytest.mark.parametrize("method", METHODS)
def test_reading_flags_a_step_later_gives_the_same_bits_and_skips_the_same_steps(tiny, method):
    states = [make_state(of_family(tiny, method)) for _ in range(2)]
    discarded_steps: list[list[int]] = [[], []]
    for which, state in enumerate(states):
        guard = NanGuard(
            state,
            on_discard=lambda discarded, seen=discarded_steps[which]: seen.append(discarded.step),
            sticky=False,
            late=which == 1,
        )
        train_steps(state, range(6), bad=2, guard=guard)
        guard.read_flags()
    assert discarded_steps == [[2], [2]]
    assert_same(states[1].state_dict(), states[0].state_dict())


def test_no_step_after_a_discarded_one_changes_the_state_until_the_host_reads_the_flags(tiny, monkeypatch):
    state = make_state(tiny)
    train_steps(state, range(3))
    before = copy_of_state(state)["model"]
    guard = NanGuard(state, late=True)
    monkeypatch.setattr(guard, "read_flags", lambda: False)  # the host is far behind
    train_steps(state, range(3, 6), bad=3, guard=guard)
    assert_same(copy_of_state(state)["model"], before)


def without_copies(guard: NanGuard) -> None:
    """Disable a part of the guard: BN's statistics are not restored."""
    guard.changed, guard.copies = guard.changed[:0] or [torch.zeros(1)], guard.copies[:0] or [torch.zeros(1)]


def without_flag(guard: NanGuard) -> None:
    """Disable a part of the guard: every step counts as finite."""
    guard.check_step = lambda *_: True  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("disable", "lost"),
    [(without_copies, "encoder.backbone.bn1.running_mean"), (without_flag, "dictionary.keys")],
)
def test_without_this_part_of_the_guard_the_state_changes(tiny, disable: Callable[[NanGuard], None], lost: str):
    state = make_state(tiny)
    train_steps(state, range(3))
    before = copy_of_state(state)["model"][lost]
    guard = NanGuard(state, on_discard=lambda _: None)
    disable(guard)
    train_steps(state, range(3, 4), bad=3, guard=guard)
    assert not torch.equal(copy_of_state(state)["model"][lost], before)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("part", ["loss", "keys", "gradient"])
def test_a_step_is_discarded_if_only_its_loss_keys_or_gradient_is_not_finite(tiny, part, late, monkeypatch):
    state, discarded_steps = make_state(tiny), []
    train_steps(state, range(2))
    guard = NanGuard(state, on_discard=discarded_steps.append, late=late)
    check_step = guard.check_step

    def spoilt(loss: Tensor, keys: Tensor, ids: Tensor) -> bool:
        if part == "gradient":
            guard.trained[1].grad.view(-1)[0] = math.inf
        elif part == "keys":
            keys[7, 7] = -math.inf
        return check_step(loss * NAN if part == "loss" else loss, keys, ids)

    monkeypatch.setattr(guard, "check_step", spoilt)
    train_steps(state, range(2, 3), guard=guard)
    guard.read_flags()
    assert [discarded.parts for discarded in discarded_steps] == [(part,)]


def test_a_grad_scaler_handles_infinite_gradients_itself(tiny):
    state = make_state(tiny, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000))
    train_steps(state, range(1), lr=0.0)
    assert state.scaler.get_scale() == 2.0**126  # it has skipped the step, and nothing was raised


def test_with_a_grad_scaler_a_step_whose_loss_is_not_finite_is_discarded_and_the_scale_stays(tiny):
    state = make_state(tiny, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    train_steps(state, range(2))
    before = copy_of_state(state)
    with pytest.raises(Diverged):
        train_steps(state, range(2, 3), bad=2)
    assert_same(copy_of_state(state), before)


def test_a_discarded_step_has_its_images_and_the_last_hundred_losses(tiny):
    state, discarded_steps = make_state(tiny), []
    guard = NanGuard(state, on_discard=discarded_steps.append)
    train_steps(state, range(120), bad=110, guard=guard)
    discarded = discarded_steps[0]
    assert discarded.step == 110
    assert discarded.ids.tolist() == list(range(440, 448))
    assert len(discarded.losses) == 101
    assert [math.isnan(loss) for loss in discarded.losses] == [False] * 100 + [True]


def train_on_a_rank(number: int) -> dict:
    """A NaN on rank 1 only. Returns the discarded steps and the model of this rank."""
    recipe = Recipe.from_json(RECIPE)
    state, discarded_steps = make_state(recipe), []
    guard = NanGuard(state, on_discard=discarded_steps.append)
    train(
        wrap(state.model), state, batches(range(3), bad=1 if number == 1 else None), lr=Constant(0.1),
        m=Constant(0.9), seed=0, guard=guard, after_step=lambda *_: None,
    )  # fmt: skip
    assert rank() == number
    return {"discarded_steps": [discarded.step for discarded in discarded_steps], "model": state.model.state_dict()}


RECIPE = ""


def test_all_ranks_discard_a_step_that_is_not_finite_on_one_of_them(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "RECIPE", tiny.but(None, {"method.bn": "shuffle"}).to_json())
    one, other = on_ranks(train_on_a_rank, 2, tmp_path)
    assert one["discarded_steps"] == other["discarded_steps"] == [1]
    assert_same(one["model"]["dictionary.keys"], other["model"]["dictionary.keys"])
    assert torch.isfinite(one["model"]["dictionary.keys"]).all()


def test_the_names_of_the_buffers_are_those_that_the_guard_expects(tiny):
    """The guard finds the dictionary's buffers by their names."""
    contrast = make_state(tiny).model
    assert isinstance(contrast, Contrast)
    assert {name.partition(".")[0] for name, _ in contrast.named_buffers()} == {"encoder", "key_encoder", "dictionary"}


@needs_fake_gpu
def test_on_a_gpu_the_guard_does_not_wait_for_the_device(tiny, monkeypatch):
    """With fake tensors, which have a device and no numbers: reading a value raises."""
    monkeypatch.setattr(nan_guard, "_to_host", lambda flags: (flags, None))  # a copy without waiting
    contrast = contrast_for(tiny, CPU, num_images=40, model=None, init=None, say=lambda _: None)
    with fake(contrast, "cuda"):
        state = TrainState(contrast, optimizer_for(contrast, tiny.optim), Clock(5, 10))
        guard = NanGuard(state)
        assert guard.late
        for parameter in guard.trained:
            parameter.grad = torch.zeros_like(parameter)
        guard.remember()
        loss, keys = torch.zeros((), device="cuda"), torch.zeros(8, 8, device="cuda")
        assert guard.check_step(loss, keys, torch.arange(8, device="cuda"))
        guard.undo_if_not_finite()
        assert state.optimizer.found_inf.device.type == "cuda"
        with pytest.raises(Exception, match="local_scalar_dense"):
            guard.read_flags()
