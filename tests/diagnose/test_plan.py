"""How often a run is measured, and on how many images."""

import pytest

from moco.diagnose.plan import COST, MAKING, MEASURING, plan_probe


@pytest.mark.parametrize("steps", [100, 400, 1122, 3720, 20_000, 1_000_000])
@pytest.mark.parametrize("batch", [32, 128, 256])
@pytest.mark.parametrize("log_every", [1, 7, 50])
def test_measurements_cost_at_most_2_percent_of_a_run(steps, batch, log_every):
    plan = plan_probe(50_000, batch=batch, steps=steps, log_every=log_every)
    if plan is None:
        assert batch * steps * COST < 64 * (MAKING + 2 * MEASURING)
        return
    measurements = 1 + steps // plan.every + (steps % plan.every > 0)
    assert plan.images * (MAKING + MEASURING * measurements) <= 1.001 * COST * batch * steps + MEASURING * plan.images
    assert plan.every % log_every == 0


def test_a_long_run_is_measured_on_1024_images_a_hundred_times():
    plan = plan_probe(1_281_167, batch=256, steps=1_000_000, log_every=50)
    assert plan is not None
    assert (plan.images, plan.every) == (1024, 10_000)


def test_the_probe_set_has_no_more_images_than_the_data():
    plan = plan_probe(100, batch=32, steps=100_000, log_every=50)
    assert plan is not None
    assert plan.images == 64


def test_a_short_run_is_not_measured():
    assert plan_probe(40, batch=8, steps=10, log_every=1) is None
