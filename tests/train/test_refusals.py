"""Runs that `pretrain` refuses, before anything is written where that can be known."""

import dataclasses
import math
import typing

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from moco import recipes
from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.schedule import Cosine
from moco.train import checkpoint
from moco.train.after_step import Diverged
from moco.train.options import RunKeywords, RunOptions
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError
from moco.weights.errors import WeightsError


def test_too_many_broken_files_stop_the_run(pictures, tiny, tmp_path):
    for i in range(5):
        (pictures / f"000{i}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="allow more with --max-bad"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, max_bad=3)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(pictures, tiny, tmp_path):
    with pytest.raises(Diverged, match="learning rate"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"optim.lr": 1e30}, save_every=1)
    path = checkpoint.newest_intact(tmp_path / "run" / "checkpoints")
    if path is not None:
        assert all(
            torch.isfinite(x).all()
            for x in checkpoint.read_checkpoint(path)["state"]["model"].values()
            if x.is_floating_point()
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim.batch_size": 64, "method.size": 64}, "there are only 40"),
        ({"method.size": 36}, "K \\+ batch <= images"),
    ],
)
def test_sizes_that_do_not_fit_the_data_are_refused_before_anything_is_written(pictures, tiny, tmp_path, change, said):
    with pytest.raises(RecipeError, match=said):
        pretrain(pictures, tmp_path / "run", recipe=tiny, settings=change)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        pretrain(tmp_path / "empty", tmp_path / "run")


def test_a_folder_with_other_files_is_not_written_to(pictures, tiny, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="has other files"):
        pretrain(pictures, tmp_path / "home", recipe=tiny)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_an_unknown_device_is_refused(pictures, tiny, tmp_path):
    with pytest.raises(RecipeError, match="--device expects"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, device="cuda:77")


@pytest.mark.parametrize("epochs", [1, 0.5])
def test_a_run_too_short_for_its_schedule_to_learn_anything_is_refused(pictures, tiny, tmp_path, epochs):
    """The notebook's schedule counts epochs from 1, and the last one has learning rate 0."""
    recipe = tiny.but(None, {"optim.lr": recipes.named("moco_cifar").optim.lr})
    with pytest.raises(RecipeError, match=r"learning rate is 0 at each of the .* steps.*--epochs 2"):
        pretrain(pictures, tmp_path / "run", recipe=recipe, settings={"optim.epochs": epochs}, dry_run=True)
    assert not (tmp_path / "run").exists()
    pretrain(pictures, tmp_path / "run", recipe=recipe, epochs=2, dry_run=True)


def test_a_single_step_of_a_warm_up_is_refused_too(pictures, tiny, tmp_path):
    changes = {"optim.epochs": 0.2, "optim.lr": Cosine(0.1, warmup=1)}
    with pytest.raises(RecipeError, match="0 at each of the 1 steps"):
        pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, changes))


def test_a_module_with_all_parameters_frozen_is_refused(pictures, tiny, tmp_path):
    frozen = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).requires_grad_(False)
    with pytest.raises(RecipeError, match="no parameter of your module takes a gradient"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, model=frozen)


KINDS = ["weights of another network", "images without labels", "model", "small crops", "BatchNorm of several ranks"]


class BatchNormReLU(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_refuses_what_the_run_refuses(pictures, tiny, tmp_path, kind, dry_run, monkeypatch):
    monkeypatch.setattr("moco.method.batchnorm.world_size", lambda: 2 if "ranks" in kind else 1)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    own = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormReLU(8))
    torch.save(resnet18(num_classes=1).state_dict(), tmp_path / "w.pth")
    given, said = {
        "weights of another network": ({"init": tmp_path / "w.pth"}, "holds other weights than those of resnet10"),
        "images without labels": ({"eval_data": pictures}, "have no labels"),
        "model": ({"model": nn.Conv2d(1, 8, 3)}, "channel"),
        "small crops": (
            {"model": flat, "settings": {"data.small_crops": 1, "data.small_size": 8}},
            "takes images of 16 x 16 pixels, but no small crops of 8 x 8 .*: set data.small_size=16",
        ),
        "BatchNorm of several ranks": (
            {"model": own, "settings": {"method.bn": "sync", "method.bn_groups": 1}},
            "1 is a BatchNormReLU, .*: train with one rank, or set method.bn=split",
        ),
    }[kind]
    with pytest.raises((RecipeError, DataError), match=said):
        pretrain(pictures, tmp_path / "run", recipe=tiny, device="cpu", dry_run=dry_run, **given)
    assert not (tmp_path / "run").exists()


def test_the_options_of_a_run_are_the_keywords_of_pretrain_with_the_same_types():
    fields = typing.get_type_hints(RunOptions)
    assert fields == typing.get_type_hints(RunKeywords)
    assert list(fields) == [field.name for field in dataclasses.fields(RunOptions)]


def test_an_unknown_option_is_an_error_that_names_it(tmp_path):
    with pytest.raises(TypeError, match="wrokers"):
        pretrain([], tmp_path, wrokers=2)


@pytest.mark.parametrize(
    "option",
    [
        {"resume": "Never"}, {"resume": False}, {"overwrite": "no"}, {"dry_run": 1}, {"keep": 0}, {"keep": -1},
        {"keep": None}, {"save_every": 0}, {"keep_every": 0}, {"eval_every": 0}, {"save_every": 2.5}, {"patience": -1},
        {"patience": math.nan},
    ],
)  # fmt: skip
@pytest.mark.usefixtures("without_shape_checks")
def test_an_invalid_value_of_an_option_is_refused_before_anything_is_written(tmp_path, option):
    with pytest.raises(RecipeError, match=f"{next(iter(option))} expects"):
        pretrain([], tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()


def test_a_name_that_no_library_has_is_refused_before_anything_is_measured(pictures, tmp_path, monkeypatch):
    measured: list[object] = []
    monkeypatch.setattr("moco.train.plan_run.fit_to_time", lambda *args, **_: measured.append(args))
    for name in ("timm/nope", "torchvision/nope"):
        with pytest.raises(WeightsError, match=f"there are no weights '{name}'"):
            pretrain(pictures, tmp_path / "run", init=name, device="cpu")
    assert not measured
