"""Refusals that need no torch come without it: its import takes seconds."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sample_pictures import make_pictures

from moco.cli import early_checks
from moco.cli.early_checks import FEATURE_FILES, NETWORKS
from moco.cli.errors import CODES
from moco.cli.options import Target
from moco.data.sources.images import DataError

ROOT = Path(__file__).parent.parent
PROBE = """
import json, sys
from contextlib import redirect_stderr
from io import StringIO
from moco.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["moco", *arguments]
    with redirect_stderr(StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            heavy = [name for name in ("torch", "torchvision", "timm", "matplotlib") if name in sys.modules]
            print(json.dumps({"code": end.code, "imported": heavy, "said": said.getvalue()}))
"""
TRANSFER = ["transfer", "classify", "--data", "flat", "--init", "random", "--model", "resnet10"]
REFUSALS: list[tuple[list[str], int, str]] = [
    (["check", "nowhere"], 3, "nowhere does not exist"),
    (["pretrain", "nowhere", "--out", "run"], 3, "nowhere does not exist"),
    (["pretrain", "empty", "--out", "run"], 3, "no images in empty"),
    (["pretrain", "empty", "--out", "run", "--budget", "soon"], 2, "a time such as 90s"),
    (["plan", "nowhere"], 3, "nowhere does not exist"),
    (["plan", "empty", "--budget", "10"], 2, "a time such as 90s"),
    (["pack", "nowhere", "--to", "shards"], 3, "nowhere does not exist"),
    (["report", "nowhere"], 2, "nowhere is not a run"),
    (["pretrain", "empty", "--out", "run", "--set", "optim.epoch=3"], 2, "did you mean optim.epochs"),
    (["pretrain", "empty", "--out", "run", "--set", "optim.epochs=ten"], 2, "optim.epochs: input should be"),
    (["pretrain", "empty", "--out", "run", "--set", "optim.epochs=0"], 2, "optim.epochs: input should be"),
    (["pretrain", "empty", "--out", "run", "--recipe", "demo", "--set", "method.bn_groups=3"], 2, "multiple"),
    (["pretrain", "empty", "--out", "run", "--recipe", "moco_v2_50"], 2, "did you mean moco_v2_r50"),
    (["pretrain", "empty", "--out", "run", "--model", "resnet_50"], 2, "did you mean resnet50"),
    (["pretrain", "empty", "--out", "run", "--model", "mobilenet"], 2, "timm/NAME"),
    (["pretrain", "empty", "--out", "run", "--recipe", "no.json"], 2, "there is no file no.json"),
    (["pretrain", "empty", "--out", "run", "--device", "tpu"], 2, "--device expects"),
    (["pretrain", "empty", "--out", "run", "--init", "no.pth"], 2, "there are no weights 'no.pth'"),
    (["pretrain", "empty", "--out", "run", "--precision", "fp8"], 2, "compute.precision"),
    (["eval", "knn", "no.pth", "empty"], 2, "there are no weights 'no.pth'"),
    (["eval", "knn", "fair:v9", "empty"], 2, "fair:v9"),
    (["embed", "encoder", "nowhere", "--to", "x.npy"], 3, "nowhere does not exist"),
    (["embed", "encoder", "empty", "--to", "x.xls"], 2, "unknown kind of file"),
    (["export", "empty", "--to", "onnx", "--out", "x.pth"], 2, "ends in .onnx"),
    (["import", "no.pth", "--out", "x"], 2, "there are no weights 'no.pth'"),
    (["transfer", "detect", "--data", "no.json", "--init", "random", "--out", "x"], 3, "no.json does not exist"),
    (["transfer", "detect", "--data", "empty", "--init", "no.pth", "--out", "x"], 2, "there are no weights 'no.pth'"),
    (["diagnose", "empty"], 2, "is not a run"),
    (["runs", "ls", "empty"], 2, "no runs in empty"),
    (["runs", "compare", "empty", "empty"], 2, "is not a run"),
    (["explain", "moco_v2_r5"], 2, "did you mean moco_v2_r50"),
    (["ablate", "momentun"], 2, "did you mean momentum"),
    (["pretrain", "flat", "--out", "run", "--devices", "many"], 2, "--devices expects"),
    (["pretrain", "flat", "--out", "run", "--on-nan", "perhaps"], 2, "--on-nan expects"),
    (["pretrain", "flat", "--out", "flat/run"], 2, "lies in the image folder"),
    (["pretrain", "flat", "--out", "text.pth"], 2, "is a file"),
    (["pretrain", "flat", "--out", "empty", "--resume", "must"], 2, "--resume must"),
    (["demo", "--out", "flat"], 2, "has other files"),
    (["views", "flat", "--out", "x.jpg"], 2, "ends in .png"),
    (["views", "flat", "--out", "no/x.png"], 2, "Create it first"),
    (["report", "empty", "--out", "no/x.html"], 2, "Create it first"),
    (["eval", "encoder", "flat"], 3, "have no labels"),
    (["eval", "encoder", "empty"], 3, "no images in empty"),
    (["embed", "encoder", "empty", "--to", "x.npy"], 3, "no images in empty"),
    (["atlas", "encoder", "empty"], 3, "no images in empty"),
    (["dedup", "encoder", "empty"], 3, "no images in empty"),
    (["compare", "encoder", "flat", "--baselines", "no"], 2, "there is no baseline no"),
    (["import", "text.pth", "--out", "x"], 2, "It is a text file"),
    (["import", "flat/0.png", "--out", "x"], 2, "It is an image (PNG)"),
    (["transfer", "classify", "--data", "flat", "--init", "random", "--out", "x"], 2, "name the network"),
    (["transfer", "classify", "--data", "flat", "--init", "a=random", "--out", "x", "--versus", "b"], 2, "--versus"),
    ([*TRANSFER, "--out", "x", "--model", "resnet_50"], 2, "did you mean resnet50"),
    ([*TRANSFER, "--out", "x", "--on-nan", "perhaps"], 2, "--on-nan expects"),
    ([*TRANSFER, "--out", "x", "--log", "perhaps"], 2, "unknown tracker"),
    ([*TRANSFER, "--out", "flat"], 2, "is --data flat"),
    ([*TRANSFER, "--out", "text.pth"], 2, "is a file"),
    ([*TRANSFER, "--out", "x", "--schedule", "1x"], 2, "unknown schedule '1x'"),
    ([*TRANSFER, "--out", "x", "--arch", "fpn"], 2, "unknown architecture"),
    ([*TRANSFER, "--out", "x", "--format", "voc"], 3, "there is no format voc"),
    ([*TRANSFER, "--out", "x", "--set", "optim.lrr=1"], 2, "did you mean optim.lr"),
    ([*TRANSFER, "--out", "x", "--set", "optim.lr=-1"], 2, "optim.lr: input should be greater than 0, got -1"),
    ([*TRANSFER, "--out", "x", "--batch-size", "-1"], 2, "greater than or equal to 1"),
    (["transfer", "detect", *TRANSFER[2:], "--out", "x", "--arch", "fcn"], 2, "arch"),
    (["transfer", "segment", *TRANSFER[2:], "--out", "x", "--schedule", "24k"], 2, "unknown schedule"),
    (["embed", "empty", "flat", "--to", "x.npy"], 2, "empty is neither a run"),
    (["eval", "empty", "flat"], 2, "empty is neither a run"),
    (["compare", "empty", "flat"], 2, "empty is neither a run"),
    (["export", "empty", "--to", "onnx", "--out", "x.onnx"], 2, "empty is neither a run"),
    (["import", "empty", "--out", "x"], 2, "empty is neither a run"),
    (["atlas", "empty", "flat"], 2, "empty is neither a run"),
    (["search", "empty", "flat/0.png", "--data", "flat"], 2, "empty is neither a run"),
    (["dedup", "empty", "flat"], 2, "empty is neither a run"),
    (["pretrain", "flat", "--out", "x", "--init", "empty"], 2, "empty is neither a run"),
    ([*TRANSFER, "--init", "a=empty", "--out", "x"], 2, "empty is neither a run"),
    (["ablate", "momentum", "--scale", "cifar"], 2, "the scale cifar expects --data"),
    (["ablate", "momentum", "--data", "flat"], 2, "the scale demo has its own images"),
]


def test_a_refusal_that_needs_no_torch_imports_none(tmp_path: Path):
    for name in ("empty", "flat", "encoder"):
        (tmp_path / name).mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    for number in range(6):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    (tmp_path / "text.pth").write_text("no weights")
    command = [sys.executable, "-c", PROBE, json.dumps([arguments for arguments, _, _ in REFUSALS])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (arguments, code, said), answer in zip(REFUSALS, answers, strict=True):
        assert (answer["code"], answer["imported"]) == (code, []), arguments
        assert said in answer["said"], arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "encoder", "flat", "text.pth"]
    assert len(list((tmp_path / "flat").iterdir())) == 6


HOMES = {
    "StoreError": "moco.data.sources.images",
    "Stopped": "moco.train.after_step", "Diverged": "moco.train.after_step", "Collapsed": "moco.train.live_diagnosis",
    "DataError": "moco.data.sources.images",
    "RecipeError": "moco.recipe", "CheckpointError": "moco.train.checkpoint", "RankError": "moco.distributed",
}  # fmt: skip


def test_every_error_with_an_exit_code_is_an_existing_class():
    for name in CODES:
        home = importlib.import_module(HOMES.get(name, "builtins"))
        assert issubclass(getattr(home, name), Exception)


def test_the_files_that_are_refused_at_once_are_those_that_cannot_be_written():
    from moco.encoders.resnet import NETS
    from moco.encoders.vit import VITS
    from moco.evaluate.embed import WRITERS
    from moco.weights.export import EXPORT_FORMATS
    from moco.weights.export_paths import ENDINGS

    assert set(FEATURE_FILES) == set(WRITERS)
    assert set(NETWORKS) == {*NETS, *VITS}
    assert set(ENDINGS) == set(EXPORT_FORMATS) == set(Target)


def test_tasks_and_formats_that_are_refused_at_once_are_those_that_do_not_exist():
    from moco.cli.transfer import TaskName
    from moco.transfer import paper_tasks
    from moco.transfer.readers import formats
    from moco.transfer.task_registry import TASKS

    assert list(paper_tasks.PAPER_TASKS) == list(TASKS) == list(TaskName)
    for name, of in paper_tasks.PAPER_TASKS.items():
        task = TASKS[name]
        assert (of.arch, of.schedule) == (task.arch, task.schedule)
        assert of.recipe(of.arch, of.schedule) == task.paper_recipe(task.arch, task.schedule)
    for kind in ("OBJECT_FORMATS", "PIXEL_FORMATS", "CLASS_FORMATS"):
        assert getattr(paper_tasks, kind) == tuple(getattr(formats, kind))


def test_the_same_images_may_be_trained_on_and_scored(tmp_path):
    early_checks.check_sources([str(make_pictures(tmp_path / "a", 4))], [str(tmp_path / "a")])
    with pytest.raises(DataError, match="count twice"):
        early_checks.check_sources([str(tmp_path / "a"), str(tmp_path / "a")])
