"""`moco transfer classify`: its schedule, mini-batches, losses and scores, and runs that are killed and resumed."""

import math
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.optim import param_groups_weight_decay
from typer.testing import CliRunner

from moco.cli import app
from moco.data.augment.normalize import normalize
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import DataError
from moco.encoders import build_headless
from moco.recipe import DataSpec, EncoderSpec, Recipe, RecipeError
from moco.train.options import RunOptions
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.watchdog import watchdog
from moco.transfer.classification.loader import ImageLoader
from moco.transfer.classification.model import Classifier
from moco.transfer.classification.recipe import ClassificationRecipe, ClassTuneSpec
from moco.transfer.classification.recipes import SCHEDULES, classification_recipe
from moco.transfer.classification.score import logits_of
from moco.transfer.fine_tune import fine_tune
from moco.transfer.plan_run import plan_transfer
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.saved_model import load_model
from moco.transfer.task_interface import TransferData
from moco.transfer.task_registry import TASKS
from moco.transfer.transfer import read_data, transfer
from moco.weights.encoder_folder import save_encoder
from tests.run_ranks import on_ranks
from tests.transfer.draw_shape_classes import make_shapes
from tests.transfer.kill_runs import Killed, have_equal_models, killed_where
from tests.transfer.small_settings import CLASSIFY as SETTINGS

TASK = TASKS["classify"]
RESNET, VIT = EncoderSpec(name="resnet18", width=0.125, stem="3x3"), EncoderSpec(name="vit_micro")
TINY = {
    "resnet": classification_recipe("linear", "4").but("tiny", SETTINGS | {"encoder": RESNET}),
    "vit": classification_recipe("linear", "v3").but(
        "tiny", SETTINGS | {"encoder": VIT, "optim.epochs": None, "optim.iterations": 4, "augment.erase": 0.5}
    ),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("made") / "shapes", 5, seed=0, size=24)


@pytest.fixture(scope="module")
def data(shapes) -> TransferData:
    return read_data(TASK, shapes, None, split=(None, None), format=None)[0]


def run(data: TransferData, out: Path, recipe: ClassificationRecipe, **options) -> dict[str, float]:
    torch.manual_seed(0)
    encoder = build_headless(recipe.encoder, size=recipe.encoder_size)
    with watchdog(None) as dog:
        chosen = RunOptions(device="cpu", workers=1, **options)
        return fine_tune(encoder, plan_transfer(TASK, data, out, torch.device("cpu"), chosen, recipe), Silent(), dog)


def test_a_recipe_of_epochs_has_iterations_by_the_number_of_images():
    optim = SCHEDULES["inat"].optim.for_images(437_513)  # iNaturalist 2018
    assert optim.iterations == 100 * (437_513 // 256)
    assert optim.at == (round(0.7 * optim.iterations), round(0.9 * optim.iterations))
    assert [optim.lr_at(i) for i in (0, optim.at[0] - 1)] == [0.025, 0.025]
    assert optim.lr_at(optim.at[0]) == pytest.approx(0.0025)
    assert optim.lr_at(optim.iterations - 1) == pytest.approx(0.00025)


def test_the_cosine_is_deits():
    """timm's CosineLRScheduler: linear from 1e-6 to lr in the warm-up, then on the half cosine of the whole run."""
    optim = SCHEDULES["v3"].optim.for_images(1024 * 100)
    total, warmup = 15_000, 500
    assert (optim.iterations, optim.warmup) == (total, warmup)
    assert optim.lr == pytest.approx(1e-3)
    assert optim.lr_at(0) == pytest.approx(1e-6)
    assert optim.lr_at(250) == pytest.approx((1e-6 + 1e-3) / 2)
    for i in (500, 7_500, 14_999):
        assert optim.lr_at(i) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * i / total)) / 2)


@pytest.mark.parametrize("name", [*SCHEDULES, "7", "1"])
def test_every_schedule_fits_few_images(name):
    recipe = classification_recipe("linear", name)
    optim = recipe.but(None, {"optim": recipe.optim.for_images(1020)}).optim
    assert optim.iterations >= 1
    assert all(0 < optim.lr_at(i) <= optim.lr for i in range(optim.iterations))


def test_two_lengths_are_refused():
    with pytest.raises(RecipeError, match="both set the length"):
        ClassTuneSpec(epochs=3, iterations=100).for_images(1000)
    assert ClassTuneSpec(epochs=None, iterations=100).for_images(1000).iterations == 100


def test_an_unknown_schedule_or_architecture_is_refused():
    with pytest.raises(RecipeError, match="unknown schedule '1x'"):
        TASK.paper_recipe("linear", "1x")
    with pytest.raises(RecipeError, match="unknown architecture for classification 'fpn'"):
        TASK.paper_recipe("fpn", "imagenet")


def test_mini_batches_are_the_same_from_any_step_on_and_for_any_number_of_workers(data):
    whole = list(ImageLoader(data.train, TINY["resnet"], steps=range(6), workers=0))
    later = list(ImageLoader(data.train, TINY["resnet"], steps=range(3, 6), workers=2))
    for a, b in zip(whole[3:], later, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))


def test_crops_are_the_views_of_pre_training_with_their_labels(data):
    recipe = TINY["resnet"]
    loader = ViewLoader(
        data.train, recipe.data_spec, batch_size=4, seed=recipe.seed, steps=range(2), workers=0,
        device=torch.device("cpu"), quarantine=Quarantine(None, None, 16),
    )  # fmt: skip
    for batch, (views, ids) in zip(ImageLoader(data.train, recipe, steps=range(2), workers=0), loader, strict=True):
        crops, labels = batch.inputs
        assert torch.equal(normalize(crops, mean=recipe.mean, std=recipe.std), views[0])
        assert torch.equal(batch.ids, ids)
        assert labels.tolist() == [data.train.labels[i] for i in ids.tolist()]


def test_one_in_five_images_of_each_class_is_held_out(data):
    assert np.bincount(data.train.labels).tolist() == [4, 4, 4, 4]
    assert np.bincount(data.test.labels).tolist() == [1, 1, 1, 1]


def test_all_layers_are_trained_those_frozen_in_pre_training_too(data, tmp_path):
    recipe = TINY["vit"].but(None, {"encoder.freeze_patch": True})
    encoder = build_headless(recipe.encoder, size=16)
    assert not all(x.requires_grad for x in encoder.parameters())
    model = TASK.build(encoder, recipe, TASK.labels(data.train))
    assert all(x.requires_grad for x in model.parameters())


def test_adamw_decays_what_timms_does(data):
    recipe = TINY["vit"]
    model = TASK.build(build_headless(VIT, size=16), recipe, TASK.labels(data.train))
    decayed, others = TASK.optimizer(model, recipe).param_groups
    names = ("encoder.backbone.pos_embed", "encoder.backbone.cls_token")
    none, some = param_groups_weight_decay(model, 0.05, no_weight_decay_list=names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0)
    assert {id(x) for x in decayed["params"]} == {id(x) for x in some["params"]}
    assert {id(x) for x in others["params"]} == {id(x) for x in none["params"]}


@pytest.mark.parametrize("kind", TINY)
def test_a_run_that_is_killed_at_random_and_resumed_ends_with_the_same_bits(data, tmp_path, kind):
    recipe = TINY[kind].but(None, {"optim.iterations": 12})
    whole = run(data, tmp_path / "whole", recipe)
    assert set(whole) == {"top1", "per_class"}
    rng = random.Random(0)
    with killed_where(lambda _: rng.random() < 0.3):
        for _ in range(10):
            with suppress(Killed):
                run(data, tmp_path / "killed", recipe, save_every=1)
    assert run(data, tmp_path / "killed", recipe, save_every=1) == whole
    assert have_equal_models(tmp_path / "whole", tmp_path / "killed")


def test_two_ranks_train_the_model_of_one(data, tmp_path):
    """Each rank has half of the images of a mini-batch; BN and gradients are averaged over the ranks."""
    recipe = TINY["resnet"].but(None, {"optim.iterations": 2, "optim.lr": 0.01})
    one = run(data, tmp_path / "one", recipe)
    two = on_ranks(lambda _: run(data, tmp_path / "two", recipe), 2, tmp_path)
    assert two == [one, {}]  # rank 0 scores
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    trained = [name for name in a if "running_var" not in name]  # NaiveSyncBatchNorm's variance is the biased one
    assert all(torch.allclose(a[name], b[name], rtol=0, atol=1e-5) for name in trained)


def test_a_share_of_the_labels_of_each_class_is_drawn_by_the_seed(data, tmp_path):
    def chosen(share: float, seed: int) -> list[int]:
        few = TASK.select(TINY["resnet"].but(None, {"labels": share, "seed": seed}), data).train
        return few.indices.tolist()

    assert np.bincount(data.train.labels[chosen(0.5, 0)]).tolist() == [2, 2, 2, 2]
    assert np.bincount(data.train.labels[chosen(0.01, 0)]).tolist() == [1, 1, 1, 1]
    assert chosen(0.5, 0) == chosen(0.5, 0) != chosen(0.5, 1)
    job = plan_transfer(
        TASK, data, tmp_path / "run", torch.device("cpu"), RunOptions(device="cpu"),
        TINY["resnet"].but(None, {"labels": 0.25}),
    )  # fmt: skip
    assert len(job.images) == 4
    assert len(job.data.test) == 4


@pytest.mark.parametrize("kind", TINY)
def test_a_saved_model_predicts_what_was_scored(data, tmp_path, kind):
    scores = run(data, tmp_path / "run", TINY[kind])
    tuned = load_model(tmp_path / "run" / "model")
    assert tuned.classes == ("pentagon", "square", "star", "triangle")
    found = np.stack([tuned.predict(data.test.read(i)) for i in range(len(data.test))])
    assert isinstance(tuned.model, Classifier)
    assert isinstance(tuned.recipe, ClassificationRecipe)
    expected = logits_of(tuned.model, data.test, tuned.recipe, workers=0).softmax(dim=1)
    assert np.allclose(found, expected.numpy(), atol=1e-6)
    assert scores["top1"] == 100 * (found.argmax(axis=1) == data.test.labels).mean()
    drawn = {one.name for one in (tmp_path / "run").glob("*.png")}
    assert drawn == {"predictions.png", "confusions.png"}
    assert drawn <= {*RunFolder(tmp_path / "run", ClassificationRecipe, "model").details}  # which `--overwrite` removes


def test_the_image_size_is_that_of_the_weights(shapes, tmp_path):
    images = DataSpec(size=16, eval_resize=18)
    save_encoder(
        tmp_path / "weights", build_headless(VIT, size=16), recipe=Recipe(name="r", encoder=VIT, data=images), facts={}
    )
    settings = {"optim.batch_size": 4}
    init = {"random": "random", "moco": str(tmp_path / "weights")}
    table = transfer(
        "classify", shapes, tmp_path / "out", init=init, schedule="2", settings=settings, device="cpu", workers=1
    )
    assert [row.recipe.images.size for row in table.rows] == [16, 16]  # pyright: ignore[reportAttributeAccessIssue]
    assert table.gap(table.rows[1], "top1") is not None
    assert "the most frequent class" in str(table)
    tensors = load_file(tmp_path / "out" / "moco" / "trial_0" / "model" / "model.safetensors")
    assert tensors["encoder.backbone.pos_embed"].shape[1] == 1 + 4


def test_a_vit_of_another_image_size_is_refused(data, tmp_path):
    encoder = build_headless(VIT, size=32)
    with pytest.raises(RecipeError, match=r"vit_micro does not take images of 16 x 16 pixels.* set images\.size=32"):
        TASK.build(encoder, TINY["vit"], TASK.labels(data.train))


def test_folders_of_splits_and_a_single_class_are_refused(shapes, tmp_path):
    for split in ("train", "val"):
        make_shapes(tmp_path / "both" / split, 1, seed=0, size=24)
    with pytest.raises(DataError, match="which are names of splits, not of classes: name the splits with --split"):
        TASK.read(tmp_path / "both", ReadOptions(), format=None)
    (tmp_path / "one").mkdir()
    (shapes / "star").rename(tmp_path / "one" / "star")
    try:
        with pytest.raises(DataError, match="are of one class, star"):
            TASK.read(tmp_path / "one", ReadOptions(), format=None)
    finally:
        (tmp_path / "one" / "star").rename(shapes / "star")


def test_an_image_that_cannot_be_read_ends_the_run_with_its_name(tmp_path):
    shapes = make_shapes(tmp_path / "shapes", 5, seed=0, size=24)
    broken = shapes / "star" / "0000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data, _ = read_data(TASK, shapes, None, split=(None, None), format=None)
    with pytest.raises(DataError, match=r"star/0000\.png.*: repair it, or "):
        run(data, tmp_path / "run", TINY["resnet"])


def test_a_dry_run_of_the_command_writes_nothing(shapes, tmp_path):
    arguments = ["transfer", "classify", "--data", str(shapes), "--out", str(tmp_path / "out"), "--init", "random",
                 "--model", "resnet18", "--schedule", "inat", "--batch-size", "4", "--set", "optim.epochs=2",
                 "--device", "cpu", "--dry-run"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "8 iterations of 4 images, lr 0.025" in result.output
    assert not (tmp_path / "out").exists()
