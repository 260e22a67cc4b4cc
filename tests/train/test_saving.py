"""Checkpoints that cannot be written: how often a run tolerates that."""

from types import SimpleNamespace

import pytest
import torch

from moco.train import saving
from moco.train.checkpoint import Clock, TrainState
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the time: `clock.now` [s]. The disk is full."""
    clock = SimpleNamespace(now=1000.0, full=True)
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock.now))
    save = saving.checkpoint.save

    def write(*given, **named):
        if clock.full:
            raise OSError(28, "No space left on device")
        return save(*given, **named)

    monkeypatch.setattr(saving.checkpoint, "save", write)
    return clock


def saver(tmp_path) -> tuple[Saver, TrainState]:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    network = torch.nn.Linear(2, 2)
    return (
        Saver(run, "{}", Silent(), every=1, at=0.0),
        TrainState(network, torch.optim.SGD(network.parameters()), Clock(10, 100, 5)),
    )


def test_three_failed_saves_within_a_minute_do_not_end_a_run_and_one_after_it_does(tmp_path, clock):
    saves, state = saver(tmp_path)
    for seconds in (0, 1, 1, 1, 50, 6.9):
        clock.now += seconds
        assert saves.save(state, must=False) is None
    clock.now += 0.1  # a minute after the first
    with pytest.raises(OSError, match=r"7 saves failed in a row.*same command again"):
        saves.save(state, must=False)


def test_two_failed_saves_do_not_end_a_run_however_far_apart(tmp_path, clock):
    saves, state = saver(tmp_path)
    assert saves.save(state, must=False) is None
    clock.now += 600
    assert saves.save(state, must=False) is None
    clock.now += 1
    with pytest.raises(OSError, match="3 saves failed in a row"):
        saves.save(state, must=False)


def test_a_save_that_succeeds_resets_the_minute_of_failed_saves(tmp_path, clock):
    saves, state = saver(tmp_path)
    for full in (True, True, False, True, True, True):
        clock.now, clock.full = clock.now + 29, full
        assert (saves.save(state, must=False) is None) == full


def test_the_last_save_of_a_run_must_succeed(tmp_path, clock):
    saves, state = saver(tmp_path)
    with pytest.raises(OSError, match="1 save failed in a row"):
        saves.save(state, must=True)


def test_records_that_could_not_be_logged_are_logged_before_a_checkpoint_or_the_save_fails(
    tmp_path, clock, monkeypatch
):
    saves, state = saver(tmp_path)
    clock.full, unwritten = False, [{"step": 4, "epoch": 0.4}, {"step": 5, "epoch": 0.5}]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert saves.save(state, must=False, unwritten=unwritten) is None
    assert not any(saves.run.checkpoints.glob("*.pt"))
    assert saves.save(state, must=False, unwritten=unwritten) is not None
    assert saves.run.metrics() == [{"step": 4, "epoch": 0.4}, {"step": 5, "epoch": 0.5}]
    assert unwritten == []
