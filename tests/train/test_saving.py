"""Checkpoints that are written beside training, and those that cannot be written."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from moco.train import saving
from moco.train.checkpoint import Clock, TrainState, read_checkpoint
from moco.train.nan_guard import Diverged
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver
from tests.train.helpers import assert_same, losses


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


def saver(tmp_path: Path, **named) -> tuple[Saver, TrainState]:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir(parents=True)
    network = torch.nn.Linear(2, 2)
    return (
        Saver(run, "{}", Silent(), every=1, at=0.0, **named),
        TrainState(network, torch.optim.SGD(network.parameters()), Clock(10, 100, 5)),
    )


def saved(saves: Saver, state: TrainState, **named) -> list[str]:
    """Save, wait, and return the names of the checkpoints that are there."""
    saves.save(state, must=False, **named)
    saves.collect(wait=True)
    return sorted(path.name for path in saves.run.checkpoints.glob("*.pt"))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checkpoints are written once it is set."""
    gate, save = threading.Event(), saving.checkpoint.save

    def write(*given, **named):
        assert gate.wait(60)
        return save(*given, **named)

    monkeypatch.setattr(saving.checkpoint, "save", write)
    return gate


def test_three_failed_saves_within_a_minute_do_not_end_a_run_and_one_after_it_does(tmp_path, clock):
    saves, state = saver(tmp_path)
    for seconds in (0, 1, 1, 1, 50, 6.9):
        clock.now += seconds
        assert saved(saves, state) == []
    clock.now += 0.1  # a minute after the first
    with pytest.raises(OSError, match=r"7 saves failed in a row.*same command again"):
        saved(saves, state)


def test_two_failed_saves_do_not_end_a_run_however_far_apart(tmp_path, clock):
    saves, state = saver(tmp_path)
    assert saved(saves, state) == []
    clock.now += 600
    assert saved(saves, state) == []
    clock.now += 1
    with pytest.raises(OSError, match="3 saves failed in a row"):
        saved(saves, state)


def test_a_save_that_succeeds_resets_the_minute_of_failed_saves(tmp_path, clock):
    saves, state = saver(tmp_path)
    for full, failed in ((True, 1), (True, 2), (False, 0), (True, 1), (True, 2), (True, 3)):
        clock.now, clock.full = clock.now + 29, full
        saved(saves, state)
        assert saves.failures == failed


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
        assert saved(saves, state, unwritten=unwritten) == []
    assert saved(saves, state, unwritten=unwritten) == ["step_00000005.pt"]
    assert saves.run.metrics() == [{"step": 4, "epoch": 0.4}, {"step": 5, "epoch": 0.5}]
    assert unwritten == []


def test_steps_made_while_a_checkpoint_is_written_are_not_in_it(tmp_path, gate):
    saves, state = saver(tmp_path)
    assert isinstance(state.model, torch.nn.Linear)
    weight = state.model.weight.detach().clone()
    state.window.add(5, {"loss": torch.tensor(3.0)})
    state.window.gather(until=5)
    saves.save(state, must=False)
    with torch.no_grad():
        state.model.weight.fill_(7)
    state.clock.step = 6
    state.window.add(6, {"loss": torch.tensor(4.0)})
    state.window.gather(until=6)
    gate.set()
    saves.collect(wait=True)
    found = read_checkpoint(tmp_path / "checkpoints" / "step_00000005.pt")["state"]
    assert torch.equal(found["model"]["weight"], weight)
    assert (found["clock"]["step"], found["window"]) == (5, {"gathered": {"loss": [3.0]}})


def test_the_next_save_waits_for_the_one_before_it(tmp_path, gate):
    saves, state = saver(tmp_path)
    saves.save(state, must=False)
    state.clock.step = 6
    threading.Timer(0.2, gate.set).start()
    saves.save(state, must=False)
    assert (tmp_path / "checkpoints" / "step_00000005.pt").exists()
    assert saved(saves, state) == ["step_00000005.pt", "step_00000006.pt"]


def _save_and_fail(saves: Saver, state: TrainState) -> None:
    with saves:
        saves.save(state, must=False)
        raise KeyError("planted")


def test_no_thread_writes_after_the_run_has_ended(tmp_path, gate):
    saves, state = saver(tmp_path)
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(KeyError, match="planted"):
        _save_and_fail(saves, state)
    assert (tmp_path / "checkpoints" / "step_00000005.pt").exists()
    assert not [one for one in threading.enumerate() if one.name == "moco-checkpoint"]


def test_a_save_that_fails_while_the_run_ends_is_reported_and_hides_no_other_error(tmp_path, clock, monkeypatch):
    saves, state = saver(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(saves.reporter, "say", said.append)
    with pytest.raises(KeyError, match="planted"):
        _save_and_fail(saves, state)
    assert len(said) == 1
    assert "checkpoint of step 5 could not be written" in said[0]


def test_a_state_that_is_not_finite_is_not_written_and_ends_the_run_at_the_next_step(tmp_path):
    saves, state = saver(tmp_path)
    assert isinstance(state.model, torch.nn.Linear)
    state.model.weight.data[1, 0] = torch.nan
    saves.save(state, must=False)
    with pytest.raises(Diverged, match="not finite after step 5: weight"):
        saves.collect(wait=True)
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 16_383, 16_384, 40_000, -1])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(value: float, place: int):
    x = torch.ones(3, 60, 20, 20).to(memory_format=torch.channels_last)
    half = torch.full((70_000,), 60_000.0, dtype=torch.float16)  # finite, its sum is not
    tensors = {"x": x, "half": half, "scalar": torch.tensor(1.0), "empty": torch.empty(0), "count": torch.tensor(3)}
    assert saving.find_not_finite(tensors) == []
    x.permute(0, 2, 3, 1).reshape(-1)[place] = value
    assert saving.find_not_finite(tensors) == ["x"]


@pytest.fixture
def shared_layers() -> TrainState:
    """A network whose layers share a parameter, in channels_last, with momentum of the optimizer."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 3))
    network.to(memory_format=torch.channels_last)
    network[2].weight = network[0].weight
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 3, 9, 9)).sum().backward()
    optimizer.step()
    return TrainState(network, optimizer, Clock(10, 100, 5))


def test_a_checkpoint_written_beside_training_has_the_bytes_of_one_that_is_waited_for(tmp_path, shared_layers):
    files = []
    for name, beside in (("beside", True), ("waited", False)):
        saves, _ = saver(tmp_path / name, beside=beside)
        saved(saves, shared_layers)
        files.append((saves.run.checkpoints / "step_00000005.pt").read_bytes())
    assert files[0] == files[1]


def test_the_second_copy_of_a_state_uses_the_memory_of_the_first(shared_layers):
    copy = saving.HostCopy()
    places = []
    for _ in range(2):
        copied, _ = copy.take(shared_layers, {})
        places.append([x.data_ptr() for x in copied.content["model"].values()])
    assert places[0] == places[1]
    own = sum(x.nbytes for x in {x.data_ptr(): x for x in shared_layers.model.state_dict().values()}.values())
    momentum = sum(one["momentum_buffer"].nbytes for one in shared_layers.optimizer.state.values())
    assert copy.nbytes == own + momentum


def test_a_run_that_waits_for_its_saves_has_the_same_bits(pictures, tiny, tmp_path):
    for out, wait in ((tmp_path / "beside", False), (tmp_path / "waited", True)):
        pretrain(pictures, out, recipe=tiny, save_every=2, wait_for_saves=wait)
    for step in (6, 8, 10):
        one, other = (
            read_checkpoint(tmp_path / name / "checkpoints" / f"step_{step:08d}.pt")["state"]
            for name in ("beside", "waited")
        )
        assert_same(one, other)
    assert losses(tmp_path / "beside") == losses(tmp_path / "waited")
