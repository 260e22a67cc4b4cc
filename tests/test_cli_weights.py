"""moco export, import, weights: what is printed, where, and with which exit code."""

import json
from pathlib import Path

import pytest
import torch
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco import exporting
from moco.cli import app
from moco.weights import import_file
from tests.weights import reference_files


def moco(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def official(tmp_path: Path) -> Path:
    torch.save(reference_files.v2(), tmp_path / "moco_v2.pth.tar")
    return tmp_path / "moco_v2.pth.tar"


def test_import_prints_what_was_in_the_file_and_the_next_command(official, tmp_path):
    result = moco("import", official, "--out", tmp_path / "imported")
    assert result.exit_code == 0, result.output
    for line in (
        "layout: MoCo v2 (facebookresearch/moco)",
        "head: mlp to 16 dimensions",
        "queue: 32 keys",
        "epoch: 200",
    ):
        assert line in result.stdout
    assert f"moco eval {tmp_path / 'imported'}" in result.stderr


def test_imported_weights_can_be_evaluated_embedded_and_exported(official, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    moco("import", official, "--out", tmp_path / "imported")
    result = moco("eval", "knn", tmp_path / "imported", labelled, "--k", "5")
    assert any(line.startswith("imported") for line in result.stdout.splitlines()), result.stderr
    assert moco("embed", tmp_path / "imported", labelled, "--to", tmp_path / "x.npy").exit_code == 0
    result = moco("export", tmp_path / "imported", "--to", "fair", "--out", tmp_path / "out.pth.tar")
    assert "MoCo v2" in result.stdout
    assert torch.load(tmp_path / "out.pth.tar", weights_only=True)["epoch"] == 200


def test_an_official_file_is_evaluated_as_it_is(official, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    result = moco("eval", "knn", official, labelled, "--k", "5")
    assert any(line.startswith("moco_v2.pth.tar") for line in result.stdout.splitlines()), result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "nothing.pth", "--out", "there"], "there are no weights 'nothing.pth'"),
        (["import", "fair:moco_v4", "--out", "there"], "unknown weights 'fair:moco_v4'"),
        (["export", "nothing.pth", "--to", "hf", "--out", "there"], "there are no weights"),
        (["export", "nothing.pth", "--to", "caffe", "--out", "there"], "'caffe' is not one of"),
        (["export", "nothing.pth", "--to", "fair", "--out", "there.zip"], "ends in .pth.tar, .pth or .pt"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_was_expected(arguments, said):
    result = moco(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_the_released_weights_are_listed_with_their_licences():
    result = moco("weights")
    assert result.stdout.count("https://") == 13
    assert result.stdout.count("licence CC-BY-NC 4.0") == 10
    listed = json.loads(moco("weights", "--json").stdout)
    assert listed[0]["name"] == "fair:moco_v1_200ep"
    assert listed[0]["md5"] == "b251726a"


def test_export_and_import_print_json(official, tmp_path):
    imported = json.loads(moco("import", official, "--out", tmp_path / "imported", "--json").stdout)
    assert (imported["out"], imported["encoder"]["name"]) == (str(tmp_path / "imported"), "resnet18")
    out = tmp_path / "x.pth.tar"
    exported = json.loads(moco("export", tmp_path / "imported", "--to", "fair", "--out", out, "--json").stdout)
    assert (exported["to"], exported["files"]) == ("fair", [str(out)])
    assert "MoCo v2" in exported["said"]


def test_an_export_replaces_no_file_unasked(official, tmp_path):
    (tmp_path / "x.pth").write_text("older")
    result = moco("export", official, "--to", "timm", "--out", tmp_path / "x.pth")
    assert (result.exit_code, (tmp_path / "x.pth").read_text()) == (2, "older")
    assert "x.pth exists: give --overwrite" in result.stderr


@pytest.mark.parametrize("command", ["export", "import"])
def test_an_interruption_says_what_was_left(official, tmp_path, monkeypatch, command):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "export", interrupted)
    monkeypatch.setattr(import_file, "import_weights", interrupted)
    to = ["--to", "timm"] if command == "export" else []
    result = moco(command, official, *to, "--out", tmp_path / "x.pth")
    assert (result.exit_code, "interrupted: nothing was written" in result.stderr) == (130, True)
