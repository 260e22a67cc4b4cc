"""Means over the steps since the last record, the same with and without a kill."""

import math
import os
import signal
from typing import Any

import pytest
import torch
from sample_pictures import make_pictures

from moco.train import pretrain as module
from moco.train.after_step import AfterStep
from moco.train.metric_means import MetricWindow
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.stop_on_signals import Stopped

LOSSES = [0.1, 1e8, -1e8, 3.7, 0.3, 2.2, 1.9]  # a sum in float32, or in another order, would be another one


def added(window: MetricWindow, losses: list[float], first: int = 1) -> MetricWindow:
    for step, loss in enumerate(losses, start=first):
        window.add(step, {"loss": torch.tensor(loss), "other": torch.tensor(2.0 * step)})
    return window


def test_a_record_has_the_mean_of_each_metric_since_the_last_record():
    window = added(MetricWindow(), LOSSES)
    window.gather(until=7)
    as_float32 = [torch.tensor(loss).item() for loss in LOSSES]
    assert window.pop_means() == {"loss": math.fsum(as_float32) / 7, "other": 8.0}
    assert window.pop_means() == {}


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_window_that_is_saved_and_loaded_halfway_gives_the_same_means(cut):
    whole, before, after = added(MetricWindow(), LOSSES), added(MetricWindow(), LOSSES[:cut]), MetricWindow()
    before.gather(until=cut)
    after.load_state_dict(before.state_dict())
    added(after, LOSSES[cut:], first=cut + 1)
    for window in (whole, after):
        window.gather(until=7)
    assert whole.pop_means() == after.pop_means()


def test_skipped_steps_do_not_count():
    window = added(MetricWindow(), [1.0, math.nan, 3.0, math.nan])
    window.discard(2)
    window.gather(until=3)
    assert window.pop_means() == {"loss": 2.0, "other": 4.0}


def losses(run) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in RunFolder(run).metrics() if "loss" in record}


def log_every(steps: int, *, kill_after: int = 0):
    class Every(AfterStep):
        def __call__(self, state, metrics):
            if state.clock.step == kill_after:
                os.kill(os.getpid(), signal.SIGTERM)
            super().__call__(state, metrics)

    return lambda **options: Every(**options | {"log_every": steps})


def test_a_window_across_a_kill_gives_the_record_of_an_uninterrupted_run(monkeypatch, tmp_path, tiny):
    pictures = make_pictures(tmp_path / "pictures", 40, classes=4)
    options: dict[str, Any] = {"recipe": tiny, "workers": 0, "device": "cpu", "eval_data": pictures, "eval_every": 1}
    pretrain(pictures, tmp_path / "each", **options)
    each = losses(tmp_path / "each")
    assert sorted(each) == list(range(1, 11))
    monkeypatch.setattr(module, "AfterStep", log_every(3, kill_after=8))
    with pytest.raises(Stopped, match="after step 8"):
        pretrain(pictures, tmp_path / "run", **options)
    monkeypatch.setattr(module, "AfterStep", log_every(3))
    pretrain(pictures, tmp_path / "run", **options)
    windows = [range(1, 4), range(4, 6), range(6, 7), range(7, 10), range(10, 11)]  # a score ends one too: 5 and 10
    expected = {steps[-1]: math.fsum(each[step] for step in steps) / len(steps) for steps in windows}
    assert losses(tmp_path / "run") == expected


def test_a_score_is_in_the_record_of_its_step(tmp_path, tiny):
    labelled = make_pictures(tmp_path / "pictures", 40, classes=4)
    run = pretrain(labelled, tmp_path / "run", recipe=tiny, workers=0, device="cpu", eval_data=labelled, eval_every=1)
    records = run.metrics()
    steps = [record["step"] for record in records]
    assert steps == list(range(steps[-1] + 1))  # each once; 0 is before the first step, and has a score only
    assert all(record.keys() >= {"loss", "lr"} for record in records[1:])
    assert next(record["step"] for record in records if "knn" in record) == 0
    assert "knn" in records[-1]


def test_a_tracker_gets_every_record(tmp_path, pictures, tiny):
    got: list[dict[str, Any]] = []

    class Tracker(Silent):
        def metrics(self, record: dict[str, Any]) -> None:
            got.append(record)

    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=Tracker())
    assert got == run.metrics()
    assert len(got) == 10
