"""The command line: what it prints, where, and with which exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco.cli import app

ROOT = Path(__file__).parent.parent
SMALL = [
    "--recipe", "demo", "--epochs", "2", "--set", "encoder.width=0.0625", "--set", "encoder.dim=8", "--set",
    "data.size=16", "--set", "data.eval_resize=16", "--set", "method.size=20", "--set", "optim.batch_size=8",
]  # fmt: skip


def moco(*arguments: object):
    """The command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(pictures, tmp_path) -> Path:
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


@pytest.fixture
def labelled(tmp_path) -> Path:
    return make_pictures(tmp_path / "labelled", 80, classes=2, seed=5)


def test_pretrain_prints_a_plan_and_the_next_command_on_stderr(pictures, tmp_path):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 0
    assert "== plan" in result.stderr
    assert "images      40" in result.stderr
    assert f"moco eval {tmp_path / 'run'}" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("group", [[], ["eval"], ["runs"]])
def test_what_a_command_does_fits_on_its_line_of_the_list_at_80_columns(group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = moco(*group, "--help").stdout
    assert "Commands:" in text
    assert "..." not in text.partition("Commands:")[2]


def test_json_on_stdout_is_one_object_with_the_recipe_and_the_last_values(pictures, tmp_path):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL, "--json")
    facts = json.loads(result.stdout)
    assert facts["step"] == 10
    assert facts["recipe"]["optim"]["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "optim.epoch=3"], 2, "did you mean optim.epochs"),
        (["--epohcs", "3"], 2, "No such option"),
        (["--recipe", "moco_v2_50"], 2, "did you mean moco_v2_r50"),
        (["--recipe", "nowhere.json"], 2, "nowhere.json"),
        (["--model", "resnet51"], 2, "did you mean"),
        (["--set", "optim.batch_size=64", "--set", "method.size=64"], 2, "there are only 40"),
        (["--set", "method.size=39"], 2, "K + batch <= images"),
        (["--init", "nothing.pth"], 2, "nothing.pth"),
        (["--device", "tpu"], 2, "--device expects"),
        (["--max-bad", "-1"], 2, "--max-bad"),
        (["--eval-data", "nowhere"], 3, "does not exist"),
    ],
)
def test_wrong_usage_exits_with_its_code_and_says_what_was_expected(pictures, tmp_path, arguments, code, said):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL, *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_without_images_exits_with_3(tmp_path):
    (tmp_path / "empty").mkdir()
    result = moco("pretrain", tmp_path / "empty", "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert "no images in" in result.stderr


def test_a_loss_that_is_not_finite_exits_with_4(pictures, tmp_path):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL, "--set", "optim.lr=1e30")
    assert result.exit_code == 4
    assert "learning rate" in result.stderr


def test_an_output_folder_that_is_the_image_folder_exits_with_2(pictures):
    result = moco("pretrain", pictures, "--out", pictures, *SMALL)
    assert result.exit_code == 2
    assert "is the image folder" in result.stderr


def test_a_dry_run_shows_the_plan_and_makes_nothing(pictures, tmp_path):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL, "--dry-run")
    assert result.exit_code == 0
    assert "== plan" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_size_is_an_option(pictures, tmp_path):
    result = moco("pretrain", pictures, "--out", tmp_path / "run", *SMALL, "--batch-size", "4", "--dry-run")
    assert "batch       4 images" in result.stderr


@pytest.mark.parametrize("kind", ["knn", "linear", "lowshot"])
def test_every_evaluation_prints_the_baselines_beside_the_encoder(run, labelled, kind):
    result = moco("eval", kind, run, labelled)
    assert result.exit_code == 0, result.stderr
    for row in ("chance", "raw pixels", "random encoder", "run"):
        assert any(line.startswith(row) for line in result.stdout.splitlines()), row


@pytest.mark.parametrize("words", [["eval"], ["eval", "all"], ["eval", "--no-cache"]])
def test_without_a_kind_all_are_in_one_table(run, labelled, words):
    result = moco(*words, run, labelled, "--json")
    assert result.exit_code == 0, result.stderr
    few = ["linear, 10 labels a class", "1-NN, 10 labels a class"]
    assert list(json.loads(result.stdout)["rows"]["run"]) == ["kNN-64", "1-NN", "linear", *few]
    assert (run / "features").exists() == ("--no-cache" not in words)


def test_evaluation_as_json_has_the_same_rows(run, labelled):
    table = json.loads(moco("eval", "knn", run, labelled, "--json", "--k", "5").stdout)
    assert set(table["rows"]) == {"raw pixels", "random encoder", "run"}
    assert table["chance"] == pytest.approx(50.0)


def test_evaluation_of_images_without_labels_exits_with_3(run, pictures):
    result = moco("eval", "knn", run, pictures)
    assert result.exit_code == 3
    assert "class folders" in result.stderr


def test_a_learning_rate_that_is_not_a_number_is_refused(run, labelled):
    result = moco("eval", "linear", run, labelled, "--protocol", "v1", "--lr", "fast")
    assert result.exit_code == 2
    assert "fast" in result.stderr


def test_embed_writes_one_row_an_image_with_the_names(run, pictures, tmp_path):
    result = moco("embed", run, pictures, "--to", tmp_path / "features.npy")
    assert result.exit_code == 0
    assert np.load(tmp_path / "features.npy").shape[0] == 40
    assert (tmp_path / "features.names.txt").read_text().splitlines()[0] == "0000.png"
    assert "40 images embedded" in result.stdout


def test_an_export_of_a_network_that_torchvision_lacks_is_refused(run, tmp_path):
    result = moco("export", run, "--to", "torchvision", "--out", tmp_path / "weights.pth")
    assert result.exit_code == 2
    assert not (tmp_path / "weights.pth").exists()


def test_runs_are_listed_and_compared(run, pictures, tmp_path):
    other = tmp_path / "other"
    assert moco("pretrain", pictures, "--out", other, *SMALL, "--seed", "3").exit_code == 0
    listed = moco("runs", "ls", tmp_path).stdout
    assert "finished" in listed
    assert str(other) in listed
    assert "seed: 0 -> 3" in moco("runs", "compare", run, other).stdout
    assert moco("runs", "ls", pictures).exit_code == 2
    (other / "recipe.json").write_text("{}")
    *rows, reason = moco("runs", "ls", tmp_path).stdout.splitlines()
    assert [row.split() for row in rows if str(other) in row] == [[str(other), "unreadable"]]
    assert reason.startswith(f"unreadable: {other}")


def test_the_version_is_the_packages():
    import moco as package

    assert moco("--version").stdout.strip() == package.__version__


def test_help_names_the_options_of_pretrain():
    text = moco("pretrain", "--help").stdout
    for option in ("--recipe", "--model", "--init", "--eval-data", "--resume", "--max-bad", "--accept-data-change"):
        assert option in text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_a_run_saves_exits_with_75_and_resumes_by_the_same_command(tmp_path, number):
    pictures = make_pictures(tmp_path / "pictures", 40)
    command = [sys.executable, "-m", "moco", "pretrain", str(pictures), "--out", str(tmp_path / "run"), *SMALL]
    command[command.index("--epochs") + 1] = "400"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "stopped by" in said
    saved = list((tmp_path / "run" / "checkpoints").glob("step_*.pt"))
    assert len(saved) >= 1
    step = torch.load(saved[-1], weights_only=True)["state"]["clock"]["step"]
    again = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    assert any(f"at step {step} of" in line for line in iter(again.stderr.readline, ""))
    again.kill()
    again.communicate()
