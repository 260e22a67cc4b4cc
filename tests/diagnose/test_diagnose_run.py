"""`moco diagnose`: the verdicts on a run, from its checkpoints and its images."""

import json

import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.train.diagnose_run import diagnose_run
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError
from moco.train.run_pictures import images_of_run


@pytest.fixture
def run(pictures, tiny, tmp_path):
    return pretrain(pictures, tmp_path / "run", recipe=tiny, device="cpu", workers=0, save_every=5).path


def moco(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_two_verdicts_and_writes_them_into_the_run(run, pictures):
    result = moco("diagnose", run, "--data", pictures, "--workers", 0, "--device", "cpu")
    assert result.exit_code == 0, result.output
    classification, dense = result.stdout.splitlines()[:2]
    assert classification.startswith("classification: ")
    assert dense.startswith("dense tasks: ")
    written = json.loads((run / "diagnosis.json").read_text())
    assert written["step"] == 10
    assert classification.startswith(f"classification: {written['classification']['word']}: ")
    assert written["measurement"]["images"] == 40


def test_as_json_it_prints_what_it_writes(run, pictures):
    result = moco("diagnose", run, "--data", pictures, "--json")
    assert json.loads(result.stdout) == json.loads((run / "diagnosis.json").read_text())


@pytest.mark.parametrize("mine", ["no JSON", '{"run": "x"}', "[]"])
def test_a_file_of_the_user_stays(run, pictures, mine):
    (run / "diagnosis.json").write_text(mine)
    result = moco("diagnose", run, "--data", pictures, "--workers", 0, "--device", "cpu")
    assert (result.exit_code, (run / "diagnosis.json").read_text()) == (0, mine)
    assert "was not written: another file" in result.stderr
    assert result.stdout.startswith("classification: ")


def test_a_diagnosis_that_cannot_be_written_is_printed(run, pictures, monkeypatch):
    def fails(path, value):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("moco.train.diagnose_run.write_json", fails)
    result = moco("diagnose", run, "--data", pictures, "--workers", 0, "--device", "cpu")
    assert result.exit_code == 0
    assert "diagnosis.json was not written" in result.stderr
    assert result.stdout.startswith("classification: ")


def _flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_left_out_with_a_caution(run, pictures):
    _flip_a_bit(run / "checkpoints" / "step_00000010.pt")
    with pytest.warns(UserWarning, match=r"step_00000010.pt is damaged \(its SHA-256 differs\); it is left out"):
        assert diagnose_run(run, pictures, device="cpu", workers=0)[1]["step"] == 5


def test_the_report_of_an_unfinished_run_has_the_encoder_of_the_newest_intact_checkpoint(run, pictures):
    (run / "finished.json").unlink()
    assert images_of_run(run, str(pictures), device="cpu", workers=0).step == 10
    _flip_a_bit(run / "checkpoints" / "step_00000010.pt")
    with pytest.warns(UserWarning, match=r"step_00000010.pt is damaged .*; using the one before it"):
        assert images_of_run(run, str(pictures), device="cpu", workers=0).step == 5


def test_it_gives_the_same_verdict_each_time(run, pictures):
    first, second = (diagnose_run(run, pictures, device="cpu", workers=0)[1] for _ in range(2))
    assert first == second


def test_the_verdict_does_not_depend_on_the_recipe(run, pictures, tiny, monkeypatch):
    """The same measurements of a run with another recipe: the same verdict."""
    before = diagnose_run(run, pictures, device="cpu", workers=0)[0]
    other = tiny.but("other", {"method.momentum": 0.0, "method.temperature": 0.5, "optim.weight_decay": 0.1,
                               "optim.lr.start": 5.0, "data.views.0.grey": 1.0})  # fmt: skip
    from moco.train import diagnose_run as module

    measured = module._measure_checkpoints  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        module, "_measure_checkpoints", lambda run, recipe, *rest, **named: measured(run, tiny, *rest, **named)
    )
    (run / "recipe.json").write_text(other.to_json())
    assert diagnose_run(run, pictures, device="cpu", workers=0)[0] == before


def test_a_folder_without_a_run_is_refused(tmp_path):
    result = moco("diagnose", tmp_path)
    assert result.exit_code == 2
    assert "is not a run" in result.stderr


def test_a_run_without_checkpoints_is_refused(run, pictures):
    for file in (run / "checkpoints").glob("*.pt"):
        file.unlink()
    with pytest.raises(RunError, match="has no checkpoint"):
        diagnose_run(run, pictures, device="cpu", workers=0)
