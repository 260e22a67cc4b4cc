"""Trackers get the numbers of metrics.jsonl, once, and cannot harm a run."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from sample_pictures import make_pictures

from moco.recipe_error import RecipeError
from moco.train import pretrain as module
from moco.train import trackers
from moco.train.after_step import AfterStep
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.stop_on_signals import Stopped
from moco.train.trackers import TRACKERS, TrackedRun, numbers


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path / "pictures", 40, classes=4)


class Messages(Silent):
    def __init__(self):
        self.said: list[str] = []

    def say(self, text):
        self.said.append(text)


class Recorder:
    """A tracker in memory."""

    package = "sys"
    runs: list["Recorder"]

    def __init__(self, run: TrackedRun):
        self.run, self.records, self.outcome = run, {}, ""
        self.runs.append(self)

    def record(self, step, values):
        self.records[step] = values

    def end(self, outcome):
        self.outcome = outcome


@pytest.fixture
def recorders(monkeypatch) -> list[Recorder]:
    monkeypatch.setitem(TRACKERS, "recorder", Recorder)
    Recorder.runs = []
    return Recorder.runs


def stop_at(step: int, monkeypatch) -> None:
    class Stops(AfterStep):
        def __call__(self, state, metrics):
            if state.clock.step == step and not self.first_step:
                os.kill(os.getpid(), signal.SIGTERM)
            super().__call__(state, metrics)

    monkeypatch.setattr(module, "AfterStep", lambda **options: Stops(**options | {"log_every": 2}))


def logged(run) -> dict[int, dict[str, float]]:
    """The numbers of metrics.jsonl by step."""
    found = [numbers(record) for record in RunFolder(run).metrics()]
    return {int(record.pop("step")): record for record in found}


def test_a_tracker_gets_every_number_of_the_log_and_the_bits_stay(pictures, tmp_path, tiny, recorders):
    plain = pretrain(pictures, tmp_path / "plain", recipe=tiny)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, eval_data=pictures, log=("recorder", "recorder"))
    assert [one.outcome for one in recorders] == ["finished"]
    assert recorders[0].records == logged(run.path)
    assert any("knn" in values for values in recorders[0].records.values())
    assert recorders[0].run.settings["optim.batch_size"] == tiny.optim.batch_size
    first, second = (load_file(one.path / "encoder" / "model.safetensors") for one in (plain, run))
    for name, value in first.items():
        assert torch.equal(value, second[name])


def test_a_resumed_run_has_the_same_id_and_says_where_it_resumes(pictures, tmp_path, tiny, recorders, monkeypatch):
    stop_at(5, monkeypatch)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, log=("recorder",))
    pretrain(pictures, tmp_path / "run", recipe=tiny, log=("recorder",))
    first, second = recorders
    assert (first.outcome, second.outcome) == ("stopped", "finished")
    assert first.run.run_id == second.run.run_id != ""
    assert (first.run.step, second.run.step) == (0, 5)


class Breaks(Recorder):
    def record(self, step, values):
        super().record(step, values)
        raise ConnectionError("no route to the server")


class Refuses(Recorder):
    def __init__(self, run):
        raise ValueError("log in first")


def test_a_failing_tracker_is_reported_once_and_the_run_finishes(pictures, tmp_path, tiny, recorders, monkeypatch):
    monkeypatch.setitem(TRACKERS, "breaks", Breaks)
    monkeypatch.setitem(TRACKERS, "refuses", Refuses)
    reporter = Messages()
    run = pretrain(
        pictures, tmp_path / "run", recipe=tiny, eval_data=pictures, log=("breaks", "refuses", "recorder"),
        reporter=reporter,
    )  # fmt: skip
    cautions = [text for text in reporter.said if "--log" in text]
    assert len(cautions) == 2
    assert "refuses failed: ValueError: log in first" in cautions[0]
    assert "breaks failed: ConnectionError: no route to the server" in cautions[1]
    broken, good = recorders
    assert len(broken.records) == 1
    assert good.records == logged(run.path)


def test_unknown_and_missing_trackers_are_refused_before_a_folder_is_made(pictures, tmp_path, tiny, monkeypatch):
    with pytest.raises(RecipeError, match="did you mean tensorboard"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, log=("tensorbord",))
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match=r"--log wandb needs the package wandb.*pip install wandb"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, log="wandb")
    assert not (tmp_path / "run").exists()


def broken_and_resumed(name: str, pictures, tmp_path, tiny, monkeypatch):
    """A run that ends by an error after step 5, and resumes at step 3: the records of steps 4 and 5 are sent twice."""
    pytest.importorskip(TRACKERS[name].package, reason=f"{name} is an optional package")

    class Ends(AfterStep):
        def __call__(self, state, metrics):
            super().__call__(state, metrics)
            if state.clock.step == 5 and not self.first_step:
                raise MemoryError

    monkeypatch.setattr(module, "AfterStep", lambda **options: Ends(**options | {"log_every": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemoryError):
        pretrain(pictures, tmp_path / "run", recipe=tiny, log=name, save_every=3)
    reporter = Messages()
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, eval_data=pictures, log=name, reporter=reporter)
    assert [text for text in reporter.said if "at step 3 of" in text]
    assert not [text for text in reporter.said if "--log" in text]
    return run


def test_tensorboard_reads_what_the_run_has_logged(pictures, tmp_path, tiny, monkeypatch):
    run = broken_and_resumed("tensorboard", pictures, tmp_path, tiny, monkeypatch)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for name in ("loss", "pretext_top1", "lr", "knn"):
        expected = {step: values[name] for step, values in logged(run.path).items() if name in values}
        seen = {event.step: event.value for event in events.Scalars(name)}
        assert seen == pytest.approx(expected, rel=1e-6), name
        assert len(events.Scalars(name)) == len(expected)
    assert "recipe/text_summary" in events.Tags()["tensors"]


def test_a_link_in_the_place_of_the_event_files_is_refused(pictures, tmp_path, tiny):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="tensorboard is a link"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, log=("tensorboard",))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_mlflow_has_what_the_run_has_logged(pictures, tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = broken_and_resumed("mlflow", pictures, tmp_path, tiny, monkeypatch)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("moco")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optim.batch_size"] == str(tiny.optim.batch_size)
    history = client.get_metric_history(found.info.run_id, "loss")
    expected = {step: values["loss"] for step, values in logged(run.path).items() if "loss" in values}
    assert {metric.step: metric.value for metric in history} == expected
    assert len(history) == len(expected)


def test_wandb_works_offline(pictures, tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    broken_and_resumed("wandb", pictures, tmp_path, tiny, monkeypatch)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2  # a process each; `wandb sync` joins them


def test_trackio_has_what_the_run_has_logged(pictures, tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = broken_and_resumed("trackio", pictures, tmp_path, tiny, monkeypatch)
    from trackio.sqlite_storage import SQLiteStorage

    records = SQLiteStorage.get_logs("moco", "run")
    expected = {step: values["loss"] for step, values in logged(run.path).items() if "loss" in values}
    assert {record["step"]: record["loss"] for record in records if "loss" in record} == pytest.approx(expected)
