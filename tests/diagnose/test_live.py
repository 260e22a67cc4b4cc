"""The diagnosis during training."""

import json
import signal

import pytest
import torch
from run_ranks import Ranks
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco.cli import app
from moco.diagnose.history import PROBE_KEY, measurements
from moco.distributed import RankError
from moco.train import live_diagnosis
from moco.train.live_diagnosis import Collapsed
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.stop_on_signals import Stopped
from tests.train.helpers import StopAt, assert_same, final_state, losses

RUN = {"device": "cpu", "workers": 0}


class Said(Silent):
    """Keeps messages and live lines."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.lines: list[tuple[str, ...]] = []

    def say(self, text: str) -> None:
        self.messages.append(text)

    def live(self, *parts: str) -> None:
        self.lines.append(parts)


def diagnosed(out) -> list[tuple[int, dict, str]]:
    return [(one["step"], one[PROBE_KEY], one["verdict"]) for one in RunFolder(out).metrics() if PROBE_KEY in one]


def test_training_has_the_same_bits_with_and_without_diagnosis(pictures, tiny, tmp_path):
    recipe = tiny.but(None, {"encoder.head": "mlp"})
    pretrain(pictures, tmp_path / "without", recipe=recipe, diagnose_every=0, **RUN)
    pretrain(pictures, tmp_path / "with", recipe=recipe, diagnose_every=2, **RUN)
    assert_same(final_state(tmp_path / "without"), final_state(tmp_path / "with"))
    assert losses(tmp_path / "without") == losses(tmp_path / "with")
    assert [step for step, _, _ in diagnosed(tmp_path / "with")] == [0, 2, 4, 6, 8, 10]
    assert diagnosed(tmp_path / "without") == []


def test_dropout_draws_the_same_numbers_with_diagnosis(pictures, tiny, tmp_path):
    from torch import nn

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 16 * 3, 8), nn.BatchNorm1d(8))

    recipe = tiny.but(None, {"encoder.name": "custom", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0})
    for name, every in (("without", 0), ("with", 3)):
        pretrain(pictures, tmp_path / name, recipe=recipe, model=network(), diagnose_every=every, **RUN)
    assert_same(final_state(tmp_path / "without"), final_state(tmp_path / "with"))


def test_a_resumed_run_has_the_same_measurements_and_verdicts(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "whole", recipe=tiny, diagnose_every=3, **RUN)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=3, reporter=StopAt(5, signal.SIGTERM), **RUN)
    pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=3, **RUN)
    assert diagnosed(tmp_path / "run") == diagnosed(tmp_path / "whole")
    assert [step for step, _, _ in diagnosed(tmp_path / "run")] == [0, 3, 6, 9, 10]


def test_the_verdict_is_in_the_live_line_and_a_fault_is_reported_once(tmp_path, tiny):
    make_pictures(tmp_path / "pictures", 40)
    for path in sorted((tmp_path / "pictures").iterdir())[1:]:
        path.write_bytes((tmp_path / "pictures" / "0000.png").read_bytes())
    said = Said()
    pretrain(tmp_path / "pictures", tmp_path / "run", recipe=tiny, diagnose_every=2, reporter=said, **RUN)
    assert sum("caution: copies: the 40 images show about 1 different pictures" in one for one in said.messages) == 1
    assert "copies" in said.lines[-1]
    assert {word for _, _, word in diagnosed(tmp_path / "run")} == {"copies"}


@pytest.fixture
def collapses(monkeypatch):
    """Every measurement from step 2 on is of collapsed embeddings."""
    real = live_diagnosis.measure_signals

    def measure(*parts, update, **named):
        found = real(*parts, update=update, **named)
        return found if not update else type(found)(**{**vars(found), "spread": 0.01})

    monkeypatch.setattr(live_diagnosis, "measure_signals", measure)


@pytest.mark.usefixtures("collapses")
def test_a_collapse_is_reported_and_the_run_continues(pictures, tiny, tmp_path):
    said = Said()
    pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=2, reporter=said, **RUN)
    assert sum(one.startswith("caution: collapsed: ") for one in said.messages) == 1
    assert RunFolder(tmp_path / "run").finished


@pytest.mark.usefixtures("collapses")
def test_on_collapse_stop_saves_exits_with_code_4_and_resumes_to_the_same_bits(pictures, tiny, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(tiny.to_json())
    command = ["pretrain", str(pictures), "--out", str(tmp_path / "run"), "--recipe", str(recipe), "--workers", "0",
               "--device", "cpu", "--diagnose-every", "2"]  # fmt: skip
    result = CliRunner().invoke(app, [*command, "--on-collapse", "stop"])
    assert result.exit_code == 4, result.output
    assert "stopped after step 4" in result.stderr
    assert "--on-collapse warn continues" in result.stderr
    assert final_state(tmp_path / "run")["clock"]["step"] == 4
    result = CliRunner().invoke(app, [*command, "--on-collapse", "warn"])
    assert result.exit_code == 0, result.output
    pretrain(pictures, tmp_path / "whole", recipe=tiny, diagnose_every=0, **RUN)
    assert_same(final_state(tmp_path / "whole")["model"], final_state(tmp_path / "run")["model"])


@pytest.mark.usefixtures("collapses")
def test_a_resumed_run_that_is_still_collapsed_stops_again(pictures, tiny, tmp_path):
    for step in (4, 6):
        with pytest.raises(Collapsed, match=f"after step {step}"):
            pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=2, on_collapse="stop", **RUN)


@pytest.mark.usefixtures("collapses")
def test_all_ranks_stop_at_the_same_step(pictures, tiny, tmp_path):
    def work(rank: int) -> None:
        try:
            pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=2, on_collapse="stop", **RUN)
        except (Collapsed, RankError) as error:
            kinds = getattr(error, "kinds", (type(error).__name__,))
            (tmp_path / f"{rank}.txt").write_text(kinds[0])

    Ranks(work, 2).wait()
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["Collapsed"] * 2  # so the exit code is 4
    assert final_state(tmp_path / "run")["clock"]["step"] == 4


def test_two_ranks_train_as_without_diagnosis(pictures, tiny, tmp_path):
    for name, every in (("without", 0), ("with", 4)):
        work = lambda rank, name=name, every=every: pretrain(  # noqa: E731
            pictures, tmp_path / name, recipe=tiny, diagnose_every=every, **RUN
        )
        assert Ranks(work, 2).wait() == [0, 0]
    assert_same(final_state(tmp_path / "without"), final_state(tmp_path / "with"))
    assert [step for step, _, _ in diagnosed(tmp_path / "with")] == [0, 4, 8, 10]


def test_the_command_uses_what_was_measured_during_training(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, diagnose_every=2, **RUN)
    result = CliRunner().invoke(app, ["diagnose", str(run.path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["measurement"] == measurements(run.metrics())[-1][1].to_dict()
    assert json.loads(result.stdout)["classification"]["word"] == diagnosed(run.path)[-1][2]


def test_a_run_without_measurements_needs_its_images(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, **RUN)
    result = CliRunner().invoke(app, ["diagnose", str(run.path)])
    assert result.exit_code == 2
    assert "--data" in result.stderr


@pytest.mark.parametrize("wrong", [{"on_collapse": "halt"}, {"diagnose_every": -1}])
def test_wrong_options_are_refused(pictures, tiny, tmp_path, wrong):
    from moco.recipe import RecipeError

    with pytest.raises(RecipeError, match=next(iter(wrong))):
        pretrain(pictures, tmp_path / "run", recipe=tiny, **RUN, **wrong)
