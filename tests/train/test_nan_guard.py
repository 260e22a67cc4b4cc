"""The NaN gate: a step with something in it that is not finite leaves everything as it was before."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from ranked import on_ranks
from torch import Tensor

from moco.distributed import rank
from moco.method import Contrast
from moco.recipe import Recipe
from moco.schedule import Constant
from moco.train import nan_guard as gates
from moco.train.build import contrast_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.ddp import wrap
from moco.train.loop import train
from moco.train.nan_guard import Diverged, Gate, Refusal
from moco.train.optim import optimizer_for
from tests.train.fake_gpu import fake, needs_fake_gpu
from tests.train.families import of_family
from tests.train.helpers import assert_same

CPU, NAN = torch.device("cpu"), float("nan")

METHODS = [
    "MoCo", "end-to-end", "end-to-end, second encoder", "end-to-end with a ViT", "end-to-end, in pieces", "memory bank",
    "memory bank, NCE", "v3", "v3 with a ViT",
]  # fmt: skip


def made(recipe: Recipe, *, scaler: torch.amp.GradScaler | None = None) -> TrainState:
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


def go(state: TrainState, steps: range, *, bad: int | None = None, gate: Gate | None = None, lr: float = 0.1) -> None:
    state.clock.step = steps.start
    train(
        state.model, state, batches(steps, bad), lr=Constant(lr), m=Constant(0.9), seed=0, gate=gate,
        after_step=lambda *_: None,
    )  # fmt: skip


def frozen(state: TrainState) -> dict:
    return copy.deepcopy(state.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_changes_no_bit_of_the_state(tiny, method):
    state = made(of_family(tiny, method))
    go(state, range(3))
    before = frozen(state)
    with pytest.raises(Diverged, match="not finite at step 4: loss, keys, gradient"):
        go(state, range(3, 4), bad=3)
    assert_same(frozen(state), before)


@pytest.mark.parametrize("method", METHODS)
def test_looked_at_a_step_later_it_changes_none_either(tiny, method):
    """As on a GPU: the next step begins, and ends, before anybody knows."""
    state = made(of_family(tiny, method))
    go(state, range(3))
    before, told = frozen(state), []

    def refused(refusal: Refusal) -> None:
        state.clock.step = refusal.step
        told.append(refusal.step)
        raise Diverged(str(refusal))

    gate = Gate(state, refused=refused, late=True)
    assert gate.late == (method != "v3")  # LARS does not look at a flag
    with pytest.raises(Diverged):
        go(state, range(3, 6), bad=3, gate=gate)
    after = frozen(state)
    for one in (before, after):  # a function of the clock
        one["optimizer"]["param_groups"][0].pop("lr")
    assert told == [3]
    assert_same(after, before)


@pytest.mark.parametrize("method", METHODS)
def test_looking_later_trains_the_same_bits_and_skips_the_same_steps(tiny, method):
    states = [made(of_family(tiny, method)) for _ in range(2)]
    told: list[list[int]] = [[], []]
    for which, state in enumerate(states):
        gate = Gate(
            state, refused=lambda refusal, seen=told[which]: seen.append(refusal.step), sticky=False, late=which == 1
        )
        go(state, range(6), bad=2, gate=gate)
        gate.look()
    assert told == [[2], [2]]
    assert_same(states[1].state_dict(), states[0].state_dict())


def test_looked_at_later_steps_after_a_refused_one_change_nothing_until_the_host_knows(tiny, monkeypatch):
    state = made(tiny)
    go(state, range(3))
    before = frozen(state)["model"]
    gate = Gate(state, late=True)
    monkeypatch.setattr(gate, "look", lambda: False)  # the host is far behind
    go(state, range(3, 6), bad=3, gate=gate)
    assert_same(frozen(state)["model"], before)


def without_copies(gate: Gate) -> None:
    """The guard taken away: BN's statistics are not put back."""
    gate.changed, gate.copies = gate.changed[:0] or [torch.zeros(1)], gate.copies[:0] or [torch.zeros(1)]


def without_flag(gate: Gate) -> None:
    """The guard taken away: whatever comes is finite."""
    gate.admits = lambda *_: True  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("take_away", "lost"),
    [(without_copies, "encoder.backbone.bn1.running_mean"), (without_flag, "dictionary.keys")],
)
def test_without_the_guard_the_state_is_lost(tiny, take_away: Callable[[Gate], None], lost: str):
    state = made(tiny)
    go(state, range(3))
    before = frozen(state)["model"][lost]
    gate = Gate(state, refused=lambda _: None)
    take_away(gate)
    go(state, range(3, 4), bad=3, gate=gate)
    assert not torch.equal(frozen(state)["model"][lost], before)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("part", ["loss", "keys", "gradient"])
def test_each_part_alone_is_noticed(tiny, part, late, monkeypatch):
    state, told = made(tiny), []
    go(state, range(2))
    gate = Gate(state, refused=told.append, late=late)
    admits = gate.admits

    def spoilt(loss: Tensor, keys: Tensor, ids: Tensor) -> bool:
        if part == "gradient":
            gate.trained[1].grad.view(-1)[0] = math.inf
        elif part == "keys":
            keys[7, 7] = -math.inf
        return admits(loss * NAN if part == "loss" else loss, keys, ids)

    monkeypatch.setattr(gate, "admits", spoilt)
    go(state, range(2, 3), gate=gate)
    gate.look()
    assert [refusal.parts for refusal in told] == [(part,)]


def test_an_infinite_gradient_under_a_grad_scaler_is_the_scalers_business(tiny):
    state = made(tiny, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000))
    go(state, range(1), lr=0.0)
    assert state.scaler.get_scale() == 2.0**126  # it has skipped the step, and nothing was raised


def test_a_loss_that_is_not_finite_is_refused_under_a_grad_scaler_and_leaves_its_scale(tiny):
    state = made(tiny, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    go(state, range(2))
    before = frozen(state)
    with pytest.raises(Diverged):
        go(state, range(2, 3), bad=2)
    assert_same(frozen(state), before)


def test_a_refusal_tells_images_and_the_last_hundred_losses(tiny):
    state, told = made(tiny), []
    gate = Gate(state, refused=told.append)
    go(state, range(120), bad=110, gate=gate)
    refusal = told[0]
    assert refusal.step == 110
    assert refusal.ids.tolist() == list(range(440, 448))
    assert len(refusal.losses) == 101
    assert [math.isnan(loss) for loss in refusal.losses] == [False] * 100 + [True]


def of_two_ranks(number: int) -> dict:
    """One of two ranks sees a NaN; what both have afterwards."""
    recipe = Recipe.from_json(RECIPE)
    state, told = made(recipe), []
    gate = Gate(state, refused=told.append)
    train(
        wrap(state.model), state, batches(range(3), bad=1 if number == 1 else None), lr=Constant(0.1),
        m=Constant(0.9), seed=0, gate=gate, after_step=lambda *_: None,
    )  # fmt: skip
    assert rank() == number
    return {"told": [refusal.step for refusal in told], "model": state.model.state_dict()}


RECIPE = ""


def test_ranks_agree_on_what_only_one_of_them_has_seen(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "RECIPE", tiny.but(None, {"method.bn": "shuffle"}).to_json())
    one, other = on_ranks(of_two_ranks, 2, tmp_path)
    assert one["told"] == other["told"] == [1]
    assert_same(one["model"]["dictionary.keys"], other["model"]["dictionary.keys"])
    assert torch.isfinite(one["model"]["dictionary.keys"]).all()


def test_contrast_is_what_the_gate_knows_the_dictionary_of(tiny):
    """The gate tells the dictionary's buffers by their name."""
    contrast = made(tiny).model
    assert isinstance(contrast, Contrast)
    assert {name.partition(".")[0] for name, _ in contrast.named_buffers()} == {"encoder", "key_encoder", "dictionary"}


@needs_fake_gpu
def test_on_a_gpu_nothing_in_the_gate_waits_for_it(tiny, monkeypatch):
    """On fake tensors, which have a device and no numbers: to look at one raises."""
    monkeypatch.setattr(gates, "_to_host", lambda flags: (flags, None))  # a copy that is not waited for
    contrast = contrast_for(tiny, CPU, num_images=40, model=None, init=None, say=lambda _: None)
    with fake(contrast, "cuda"):
        state = TrainState(contrast, optimizer_for(contrast, tiny.optim), Clock(5, 10))
        gate = Gate(state)
        assert gate.late
        for parameter in gate.trained:
            parameter.grad = torch.zeros_like(parameter)
        gate.remember()
        loss, keys = torch.zeros((), device="cuda"), torch.zeros(8, 8, device="cuda")
        assert gate.admits(loss, keys, torch.arange(8, device="cuda"))
        gate.settle()
        assert state.optimizer.found_inf.device.type == "cuda"
        with pytest.raises(Exception, match="local_scalar_dense"):
            gate.look()
