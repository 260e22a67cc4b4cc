"""Training steps on a device: against the CPU in float64, without waiting for it, in constant memory."""

import pytest
import torch

from moco.train.checkpoint import TrainState
from moco.train.nan_guard import NanGuard
from tests.gpu.helpers import CPU, difference, needs_gpu, run, run_unread, state_on
from tests.train.fake_gpu import RECIPES
from tests.train.helpers import assert_same

STEPS = range(10)
SMALL = 1e-5  # learning rate: the networks are so small that larger steps magnify each rounding


@pytest.mark.parametrize("case", RECIPES)
def test_ten_steps_in_float64_are_those_of_the_cpu(case, device, record_property):
    recipe = RECIPES[case].but(None, {"compute.precision": "fp32"})
    there, here = (state_on(place, recipe, torch.float64) for place in (device, CPU))
    losses, expected = (run(state, recipe, STEPS) for state in (there, here))
    record_property("relative difference", f"{difference(there, here):.1e}")
    assert losses == pytest.approx(expected, rel=1e-9)
    if recipe.optim.optimizer == "sgd":  # AdamW and LARS magnify the rounding of gradients that are 0
        assert difference(there, here) < 1e-7  # of weights, BN statistics, keys and queue


@pytest.mark.parametrize("case", RECIPES)
def test_ten_steps_in_float32_are_close_to_float64(case, device, record_property):
    recipe = RECIPES[case].but(None, {"compute.precision": "fp32"})
    there, exact = state_on(device, recipe), state_on(CPU, recipe, torch.float64)
    losses, expected = (run(state, recipe, STEPS, lr=SMALL) for state in (there, exact))
    largest = max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True))
    record_property("relative difference of a loss", f"{largest:.1e}")
    assert largest < 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("case", ["moco_v2", "moco_v3_adamw", "moco_v3_lars"])
def test_steps_under_autocast_are_near_those_in_float32(case, precision, device, record_property):
    recipes = [RECIPES[case].but(None, {"compute.precision": one}) for one in (precision, "fp32")]
    losses, expected = (run(state_on(device, recipe), recipe, STEPS, lr=SMALL) for recipe in recipes)
    largest = max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True))
    record_property("relative difference of a loss", f"{largest:.1e}")
    assert largest < 0.1


@pytest.mark.parametrize("case", RECIPES)
def test_the_same_steps_twice_have_the_same_bits(case, device):
    recipe = RECIPES[case]
    first, second = state_on(device, recipe), state_on(device, recipe)
    assert run(first, recipe, STEPS) == run(second, recipe, STEPS)
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("case", RECIPES)
def test_a_step_that_is_not_finite_is_skipped_with_the_same_bits_early_and_late(case, device):
    recipe = RECIPES[case].but(None, {"compute.precision": "fp32"})
    skipped: list[list[int]] = [[], []]
    states = [state_on(device, recipe) for _ in skipped]
    for state, seen, late in zip(states, skipped, (False, None if device.type == "cuda" else True), strict=True):
        guard = NanGuard(
            state, on_discard=lambda one, seen=seen: seen.append(one.step), sticky=False, late=late
        )  # fmt: skip
        run(state, recipe, range(6), bad=2, guard=guard)
        guard.read_flags()
    assert skipped == [[2], [2]]
    assert_same(states[0].state_dict(), states[1].state_dict())


def test_the_guard_reads_its_flags_late_on_a_gpu(device):
    state = state_on(device, RECIPES["moco_v2"])
    assert NanGuard(state).late == (device.type == "cuda")


def test_a_gradient_scaler_lowers_its_scale_and_the_step_changes_nothing(device):
    """A loss scale of 2^40 overflows float16: the first steps are skipped, and later ones train."""
    recipe = RECIPES["moco_v2"].but(None, {"compute.precision": "fp16"})
    state = state_on(device, recipe)
    assert isinstance(state.scaler, torch.amp.GradScaler)
    state.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**40)
    guard = NanGuard(state, on_discard=lambda _: None, sticky=False)
    losses = run(state, recipe, range(30), guard=guard)
    assert state.scaler.get_scale() < 2.0**40
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert all(bool(x.isfinite().all()) for x in state.model.state_dict().values())  # pyright: ignore


@pytest.mark.parametrize("case", [case for case in RECIPES if case != "moco_v3_lars"])
def test_no_step_waits_for_the_device(case, device):
    """But for the first, which makes the optimizer's state. With LARS the NaN guard reads its flags at once."""
    recipe = RECIPES[case].but(None, {"compute.precision": "bf16"})
    state = state_on(device, recipe)

    def forbid(state: TrainState, _: object) -> None:
        if device.type == "cuda" and state.clock.step == 2:
            torch.cuda.set_sync_debug_mode("error")

    try:
        assert len(run_unread(state, recipe, range(22), after_step=forbid)) == 22
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_memory_stays_the_same_over_400_steps(record_property):
    recipe, used = RECIPES["moco_v2"], []
    state = state_on(torch.device("cuda"), recipe)
    guard = NanGuard(state)
    for start in range(0, 400, 50):
        run(state, recipe, range(start, start + 50), guard=guard)
        used.append(torch.cuda.memory_allocated())
    record_property("bytes after 150 and 400 steps", f"{used[2]:,} {used[-1]:,}")
    assert max(used[3:]) <= used[2]  # after 100 steps the guard holds as many losses as it ever does


@needs_gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_encoders_and_graphs_give_the_losses_of_the_plain_run(graphs, without_shape_checks, record_property):
    device = torch.device("cuda")
    plain = RECIPES["moco_v2"].but(None, {"compute.precision": "fp32"})
    compiled = plain.but(None, {"compute.compile": True, "compute.cuda_graphs": graphs})
    expected = run(state_on(device, plain), plain, range(12), lr=SMALL)
    losses = run(state_on(device, compiled), compiled, range(12), lr=SMALL)
    largest = max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True))
    record_property("relative difference of a loss", f"{largest:.1e}")
    assert largest < 1e-3
