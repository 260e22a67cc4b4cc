"""Runs with small crops, keys of several views and groups of images: resume, plan and refusals."""

import shutil

import pytest
import torch
from sample_pictures import make_pictures

import moco
from moco.data.sources.images import DataError
from moco.evaluate.evaluate import evaluate
from moco.recipe import RecipeError
from moco.recipes import named
from moco.recipes.sources_of_numbers import idle_settings
from moco.train import after_step
from moco.train.build import contrast_for
from moco.train.loop import seed_step
from moco.train.summary import more_views
from moco.train.warm_start import refill

SMALL = {"data.size": 16, "data.eval_resize": 16, "method.size": 16, "optim.batch_size": 16, "method.bn_groups": 2}
MORE = {"data.small_crops": 2, "data.small_size": 8, "data.key_views": 2, "data.groups": r"(\d+)\d\.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"), 48)


def run(folder, out, *, more=MORE, **options):
    options = {"recipe": "demo", "epochs": 2, "device": "cpu", "report": False, "compare": False} | options
    return moco.pretrain(folder, out, settings=SMALL | more, **options)


def weights(run):
    return moco.load(run.path).encoder.state_dict()


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("runs") / "whole", save_every=1)


def stop_after(step, monkeypatch):
    made = after_step.AfterStep.__call__

    def stop(self, state, *args, **kwargs):
        result = made(self, state, *args, **kwargs)
        if state.clock.step == step:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(after_step.AfterStep, "__call__", stop)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(folder, whole, tmp_path, monkeypatch):
    stop_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "stopped", save_every=1)
    monkeypatch.undo()
    resumed = weights(run(folder, tmp_path / "stopped", save_every=1))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_run_with_groups_resumes_with_fewer_images(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "images")
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "images", tmp_path / "out", save_every=1)
    for file in sorted((tmp_path / "images").iterdir())[:12]:
        file.unlink()
    resumed = run(tmp_path / "images", tmp_path / "out", accept_data_change=True)
    assert resumed.metrics()[-1]["step"] == 4


@pytest.mark.parametrize("setting", MORE)
def test_each_setting_changes_the_run(folder, whole, tmp_path, setting):
    without = weights(run(folder, tmp_path / "out", more={k: v for k, v in MORE.items() if k != setting}))
    assert any(not torch.equal(tensor, without[name]) for name, tensor in weights(whole).items())


def test_a_queue_that_is_filled_before_the_first_step_has_the_keys_of_training():
    recipe = named("demo").but(None, SMALL | {"data.key_views": 3, "method.size": 16})
    contrast = contrast_for(recipe, torch.device("cpu"), num_images=48, model=None, init=None, say=str)
    torch.manual_seed(0)
    views, ids = [torch.randn(16, 3, 16, 16) for _ in range(4)], torch.arange(16)
    expected = contrast.momentum_keys(views, seed_step(recipe.seed, 4))[1]
    refill(contrast, lambda _: [(views, ids)], recipe, steps_per_epoch=5)
    torch.testing.assert_close(contrast.dictionary.keys, expected)
    assert contrast.dictionary.ids.equal(ids)


def test_the_log_names_groups_and_views(whole):
    log = (whole.path / "train.log").read_text()
    assert "5 groups of up to 10 images by (\\d+)\\d\\.png" in " ".join(log.split())
    assert "views of 16 x 16 pixels, 2 of each key, and 2 of 8 x 8" in " ".join(log.split())


def test_a_rule_without_groups_is_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(DataError, match="puts no two of 48 images together"):
        run(folder, tmp_path / "out", more={"data.groups": "x(.*)"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        ("end_to_end_256", {"data.small_crops": 1}, "data.small_crops=1 needs keys that take no"),
        ("moco_v2_r50", {"data.key_views": 2, "compute.deal_keys": True}, "data.key_views=2 needs keys that take no"),
        ("moco_v3_vit_small", {"data.small_crops": 2}, "takes images of one size: set data.small_size=224"),
        ("memory_bank_nce", {"data.groups": "folder"}, "compares with noise, from which no key is left out"),
        ("moco_v2_r50", {"data.small_area": (0.2, 0.1)}, "small_area must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused(base, changes, words):
    with pytest.raises(RecipeError, match=words):
        named(base).but(None, changes)


def test_a_vit_takes_small_crops_of_its_own_size():
    named("moco_v3_vit_small").but(None, {"data.small_crops": 2, "data.small_size": 224})


def test_the_papers_recipes_have_none_of_this():
    for name in ("moco_v1_r50", "moco_v2_r50", "moco_v3_r50_100", "moco_cifar", "demo"):
        data = named(name).data
        assert (data.key_views, data.small_crops, data.groups, more_views(data)) == (1, 0, None, "")
        assert {"data.small_size", "data.small_area"} <= idle_settings(named(name))


def test_the_evaluation_of_such_a_run_parts_no_group(folder, whole, tmp_path):
    make_pictures(tmp_path / "labelled", 120, classes=2)
    table = evaluate("knn", whole.path, tmp_path / "labelled", device="cpu")
    assert "one in 5 of the groups by (\\d+)\\d\\.png of each class" in str(table)
