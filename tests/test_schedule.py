"""Schedules at their corners, against the papers' formulas."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from moco.schedule import Constant, Cosine, Decay, Schedule, Steps


def test_steps_drop_at_their_milestones_and_not_before():
    lr = Steps(0.03, at=(120, 160))
    at = {0: 0.03, 119.99: 0.03, 120: 0.003, 159.99: 0.003, 160: 0.0003, 199: 0.0003}
    assert {epoch: lr(epoch, 200) for epoch in at} == pytest.approx(at)


def test_decay_drops_after_every_so_many_epochs_and_not_before():
    lr = Decay(0.12, every=2.5, factor=0.9)
    at = {0: 0.12, 2.4999: 0.12, 2.5: 0.12 * 0.9, 4.9999: 0.12 * 0.9, 5: 0.12 * 0.81, 25: 0.12 * 0.9**10}
    assert {epoch: lr(epoch, 100) for epoch in at} == pytest.approx(at, rel=1e-12)


@pytest.mark.parametrize("per_epoch", [7, 97, 917_968])
@pytest.mark.parametrize("every", [1, 13, 62_500])
def test_decay_by_steps_drops_at_exactly_those_steps(every, per_epoch):
    """A schedule counts in epochs, and step / steps_per_epoch rounds: no drop may come a step late or early."""
    lr = Decay(1.0, every=every / per_epoch, factor=0.5)
    for i in range(1, 21):
        assert lr((i * every - 1) / per_epoch, 1.0) == 0.5 ** (i - 1)
        assert lr(i * every / per_epoch, 1.0) == 0.5**i


@pytest.mark.parametrize("epoch", [0, 1, 57, 199])
def test_cosine_of_whole_epochs_is_main_mocos(epoch):
    lr = Cosine(0.03, whole_epochs=True)
    expected = 0.03 * 0.5 * (1.0 + math.cos(math.pi * epoch / 200))
    assert lr(epoch, 200) == pytest.approx(expected)
    assert lr(epoch + 0.99, 200) == pytest.approx(expected)  # constant within an epoch


def test_cosine_whose_epochs_count_from_one_ends_at_zero():
    lr = Cosine(0.06, whole_epochs=True, first=1)
    assert lr(0, 200) == pytest.approx(0.059996, abs=1e-6)  # what the CIFAR notebook's first epoch prints
    assert lr(199, 200) == pytest.approx(0.0, abs=1e-12)


def test_warm_up_starts_at_zero_and_is_linear():
    lr = Cosine(2.4e-3, warmup=40)
    assert lr(0, 300) == 0.0
    assert lr(10, 300) == pytest.approx(0.6e-3)
    assert lr(40, 300) == pytest.approx(2.4e-3)
    assert lr(170, 300) == pytest.approx(1.2e-3)  # half of the way from 40 to 300
    assert lr(300, 300) == pytest.approx(0.0, abs=1e-12)


def test_cosine_rises_to_its_stop_for_the_momentum_of_v3():
    m = Cosine(0.99, stop=1.0)
    for done in (0, 0.25, 0.5, 1):
        assert m(300 * done, 300) == pytest.approx(1 - (1 - 0.99) * 0.5 * (1 + math.cos(math.pi * done)))


@pytest.mark.parametrize(
    "schedule", [Constant(0.1), Steps(0.03, at=(1, 2)), Decay(0.1, every=0.5), Cosine(0.1, warmup=3)]
)
def test_a_schedule_survives_json(schedule):
    adapter = TypeAdapter(Schedule)
    assert adapter.validate_json(adapter.dump_json(schedule)) == schedule


def test_a_bare_number_is_a_constant_schedule():
    assert TypeAdapter(Schedule).validate_python(0.5) == Constant(0.5)


def test_an_unknown_field_of_a_schedule_is_refused():
    with pytest.raises(ValidationError):
        TypeAdapter(Schedule).validate_python({"kind": "cosine", "start": 0.1, "end": 0.0})


@pytest.mark.parametrize("every", [0, -1])
def test_a_decay_without_an_interval_is_refused(every):
    with pytest.raises(ValidationError):
        TypeAdapter(Schedule).validate_python({"kind": "decay", "value": 0.1, "every": every})


@pytest.mark.parametrize(
    "schedule",
    [Constant(0.3), Steps(0.3, at=(2, 4)), Decay(0.3, every=1.5), Cosine(0.3, warmup=2), Cosine(0.1, stop=0.3)],
)
def test_the_peak_is_the_largest_value_of_a_run(schedule):
    assert max(schedule(epoch / 100, 6) for epoch in range(601)) == pytest.approx(schedule.peak)


@pytest.mark.parametrize(
    "schedule", [Constant(0.3), Steps(0.3, at=(2, 4)), Decay(0.3, every=1.5), Cosine(0.3, warmup=2)]
)
def test_a_scaled_schedule_is_that_many_times_as_high_everywhere(schedule):
    for epoch in (0, 0.5, 1.99, 2, 3.7, 5.9):
        assert schedule.scaled(4)(epoch, 6) == pytest.approx(4 * schedule(epoch, 6))
