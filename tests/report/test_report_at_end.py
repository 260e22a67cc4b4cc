"""The report that a run writes by itself, and the reason of a run that stopped."""

import json
import os
import shlex
import signal

import pytest
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.report.contents import report_of_run
from moco.train import report_run, run_pictures
from moco.train.pretrain import pretrain
from moco.train.report_contents import read_contents
from moco.train.reporters import Silent
from moco.train.stop_on_signals import Stopped
from tests.parse_command import parse
from tests.train.helpers import StopAt

EXPORT = "Use the encoder in other programs."


class Heard(Silent):
    """Keeps messages and boxes."""

    def __init__(self):
        self.said, self.boxes = [], {}

    def say(self, text):
        self.said.append(text)

    def box(self, title, rows):
        self.boxes[title] = dict(rows)


class Fails(Heard):
    """Does something else at the first step: it is called there."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def live(self, *parts):
        self.act()


def state_in(run):
    moco.write_report(run)
    return json.loads((run / "report.json").read_text())["runs"][0]["state"]


def test_a_run_writes_its_report_and_names_it(tmp_path, pictures, tiny):
    heard = Heard()
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=heard)
    assert heard.boxes["done"]["report"] == str(run.path / "report.html")
    report = json.loads((run.path / "report.json").read_text())["runs"][0]
    assert report["state"]["word"] == "finished"
    parts = [one["id"] for one in report["pictures"]["sections"]]
    assert parts == ["views", "neighbours", "worst", "map", "duplicates", "outliers"]
    assert report["pictures"]["text"].startswith("From 40 of the 40 images")


def test_the_commands_to_go_on_with_run_as_they_are(tmp_path, pictures, tiny, monkeypatch):
    """`auto` alone would take another network than the run's, and timm has no network of width 1/4."""
    monkeypatch.chdir(tmp_path)
    recipe = tiny.but(None, {"encoder.width": 0.25, "encoder.stem": "3x3/2"})
    run = pretrain(pictures, tmp_path / "run", recipe=recipe, workers=0, device="cpu")
    rows = json.loads((run.path / "report.json").read_text())["runs"][0]["next"]
    after = {one["what"]: one["command"] for one in rows}
    longer = shlex.split(after["Train longer, from these weights."])
    data = longer.index("pretrain") + 1
    longer[data] = str(pictures)
    for command in ([*longer[1:], "--workers", "0", "--device", "cpu"], shlex.split(after[EXPORT])[1:]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run-longer" / "recipe.json").read_text())["encoder"]["width"] == 0.25
    assert (tmp_path / "encoder.onnx").exists()


def test_every_command_to_go_on_with_parses(tmp_path, pictures, tiny):
    finished = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu").path
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "cut", recipe=tiny, workers=0, device="cpu", reporter=StopAt(4))
    for run in (finished, tmp_path / "cut"):
        rows = report_of_run(read_contents(run), None)["runs"][0]["next"]
        commands = [shlex.split(one["command"]) for one in rows if one["command"].startswith("moco ")]
        assert commands
        for command in commands:
            parse(command[1:])


def test_without_report_none_is_written(tmp_path, pictures, tiny):
    heard = Heard()
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", report=False, reporter=heard)
    assert "report" not in heard.boxes["done"]
    assert not [one for one in os.listdir(run.path) if one.startswith("report")]


def test_no_report_is_an_option_of_the_command(tmp_path, pictures, tiny):
    (tmp_path / "tiny.json").write_text(tiny.to_json())
    out = tmp_path / "run"
    command = ["pretrain", str(pictures), "--out", str(out), "--recipe", str(tmp_path / "tiny.json"), "--no-report"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (out / "finished.json").exists()
    assert not (out / "report.html").exists()


def test_a_report_that_cannot_be_written_is_a_warning_with_the_command(monkeypatch, tmp_path, pictures, tiny):
    def fail(*_, **__):
        raise MemoryError("no room")

    heard, out = Heard(), tmp_path / "a run"
    monkeypatch.setattr(report_run, "write_files", fail)
    run = pretrain(pictures, out, recipe=tiny, workers=0, device="cpu", reporter=heard)
    assert (run.path / "finished.json").is_file()
    assert "report" not in heard.boxes["done"]
    (line,) = [one for one in heard.said if "could not be written: MemoryError: no room" in one]
    assert line.endswith(f"moco report '{out}'")


def test_pictures_that_cannot_be_made_leave_a_report_without_them(monkeypatch, tmp_path, pictures, tiny):
    def fail(*_, **__):
        raise MemoryError("no room")

    heard = Heard()
    monkeypatch.setattr(run_pictures, "take_views", fail)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=heard)
    assert heard.boxes["done"]["report"] == str(run.path / "report.html")
    assert json.loads((run.path / "report.json").read_text())["runs"][0]["pictures"]["sections"] == []
    (line,) = [one for one in heard.said if "pictures could not be made: MemoryError: no room" in one]
    assert line.endswith(f"moco report {run.path} --data DATA")


def test_a_file_of_the_user_stays_and_the_run_finishes(tmp_path, pictures, tiny):
    page = tmp_path / "run" / "report.html"
    heard = Fails(lambda: page.write_text("mine"))
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=heard)
    assert (run.path / "finished.json").is_file()
    assert page.read_text() == "mine"
    assert any("is not a report" in one for one in heard.said)


def test_the_report_of_a_run_stopped_by_a_signal_says_so(tmp_path, pictures, tiny):
    with pytest.raises(Stopped):
        pretrain(
            pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu",
            reporter=Fails(lambda: os.kill(os.getpid(), signal.SIGTERM)),
        )  # fmt: skip
    state = state_in(tmp_path / "run")
    assert state["word"] == "stopped"
    assert "stopped by SIGTERM after step" in state["text"]
    found = moco.write_report(tmp_path / "run", data=pictures, device="cpu", workers=0)["runs"][0]
    assert [len(found["pictures"]["sections"]), found["state"]] == [6, state]  # by the encoder of its checkpoint


def test_the_report_of_a_run_that_failed_has_the_error_in_one_line(tmp_path, pictures, tiny):
    def fail():
        raise RuntimeError("CUDA out of\nmemory")

    with pytest.raises(RuntimeError):
        pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=Fails(fail))
    assert state_in(tmp_path / "run")["text"].endswith("RuntimeError: CUDA out of\\nmemory")


def test_a_run_that_was_resumed_and_finished_has_no_reason(tmp_path, pictures, tiny):
    acts = iter([lambda: os.kill(os.getpid(), signal.SIGTERM)])
    reporter = Fails(lambda: next(acts, lambda: None)())
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=reporter)
    pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", reporter=reporter)
    assert state_in(tmp_path / "run")["word"] == "finished"
