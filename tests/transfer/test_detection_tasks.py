"""The tasks of Table 6 from files to scores: trained, killed and resumed, saved and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moco.data.decode.decode import decode
from moco.encoders import build_headless
from moco.recipe import EncoderSpec, RecipeError
from moco.train.options import RunOptions
from moco.train.reporters import Silent
from moco.train.watchdog import watchdog
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.fine_tune import fine_tune
from moco.transfer.metrics.densepose import BodyResults
from moco.transfer.plan_run import plan_transfer
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.saved_model import load_model
from moco.transfer.task_interface import Labels, TransferData, TransferTask
from moco.transfer.task_registry import TASKS
from tests.transfer.draw_scenes import make_scenes
from tests.transfer.kill_runs import have_equal_models, killed_at
from tests.transfer.sample_surface import write_surface
from tests.transfer.scenes_of_lvis_and_cityscapes import make_bodies, make_cityscapes, make_lvis, write_symmetry

SMALL = {
    "encoder": EncoderSpec(name="resnet18", width=0.125), "optim.batch_size": 2, "optim.warmup": 2,
    "sizes.shorter": (64, 72), "sizes.eval_shorter": 64, "detector.fpn_channels": 16, "detector.fc_channels": 16,
    "detector.mask_channels": 16, "detector.keypoint_channels": 16, "detector.anchor_sizes": (8, 16, 32, 64, 128),
    "detector.proposals": 20, "detector.rois": 16, "precise_bn": 2,
}  # fmt: skip
Made = tuple[TransferTask[Any], TransferData[Any]]


def lvis(folder: Path) -> Made:
    task = TASKS["lvis"]
    parts = [task.read(make_lvis(folder / str(i), 6, seed=i), ReadOptions(), format=None) for i in (0, 1)]
    return task, TransferData(*parts)


def cityscapes(folder: Path) -> Made:
    task = TASKS["cityscapes"]
    for seed, split in enumerate(("train", "val")):
        make_cityscapes(folder, 6, seed=seed, split=split)
    return task, TransferData(*(task.read(folder, ReadOptions(split=one), format=None) for one in ("train", "val")))


def densepose(folder: Path) -> Made:
    write_surface(folder)
    write_symmetry(folder)
    task = TASKS["densepose"].with_body_surface(folder)
    parts = [task.read(make_bodies(folder / str(i), 6, seed=i), ReadOptions(), format=None) for i in (0, 1)]
    return task, TransferData(*parts)


MAKERS: dict[str, Callable[[Path], Made]] = {"lvis": lvis, "cityscapes": cityscapes, "densepose": densepose}


@pytest.fixture(scope="module", params=MAKERS)
def made(request, tmp_path_factory) -> Made:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def recipe_of(task: TransferTask[Any]) -> DetectionRecipe:
    return task.paper_recipe(task.arch, "4").but("tiny", SMALL)  # pyright: ignore[reportReturnType]


def run(made: Made, out: Path, recipe: DetectionRecipe | None = None, **options: Any) -> dict[str, float]:
    task, data = made
    recipe = recipe or recipe_of(task)
    torch.manual_seed(0)
    with watchdog(None) as dog:
        chosen = RunOptions(device="cpu", workers=1, **options)
        job = plan_transfer(task, data, out, torch.device("cpu"), chosen, recipe)
        return fine_tune(build_headless(recipe.encoder), job, Silent(), dog)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> tuple[Path, dict[str, float]]:
    """A run that was not disturbed, and its scores."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(made, out)


def test_a_killed_run_ends_with_the_same_bits(made, whole, tmp_path):

    with killed_at(3):
        run(made, tmp_path / "run", save_every=1)
    out, scores = whole
    assert run(made, tmp_path / "run", save_every=1) == pytest.approx(scores, nan_ok=True)
    assert have_equal_models(out, tmp_path / "run")


def test_the_scores_have_the_columns_of_the_table(made, whole):
    columns = made[0].columns(Path("data"), None)
    assert set(columns) <= whole[1].keys()
    assert all(0 <= whole[1][name] <= 100 or np.isnan(whole[1][name]) for name in columns)


def test_a_finished_run_has_pictures(made, whole):
    assert (whole[0] / "predictions.png").is_file()
    assert (whole[0] / "precision_recall.png").is_file() == (made[0].name == "densepose")


def test_the_saved_model_finds_what_the_trained_one_found(made, whole):
    out, scores = whole
    task, data = made
    tuned, again = load_model(out / "model"), load_model(out / "model")
    assert tuned.classes == tuple(data.train.classes)
    assert task.score(again.model, data.test, again.recipe, workers=0) == pytest.approx(scores, nan_ok=True)
    found = [model.predict(decode(data.test.scenes[0].path)) for model in (tuned, again)]
    assert np.array_equal(found[0].boxes, found[1].boxes)


def test_lvis_draws_rare_classes_more_often_and_finds_300_objects(tmp_path):
    recipe = TASKS["lvis"].paper_recipe("fpn", "1x")
    assert isinstance(recipe, DetectionRecipe)
    assert recipe.repeat == 0.001
    settings = recipe.settings(1230, 0)
    assert (settings.score_threshold, settings.max_detections) == (1e-4, 300)
    scenes = TASKS["instance"].read(make_scenes(tmp_path, 3, seed=0), ReadOptions(), format=None)
    with pytest.raises(RecipeError, match="the classes have no frequencies"):
        TASKS["lvis"].fit(recipe, TransferData(scenes, scenes))


@pytest.mark.parametrize(("stem", "smallest"), [("7x7/2+pool", 32), ("3x3/2", 16), ("3x3", 8)])
def test_anchors_fit_the_stride_of_the_encoder_unless_the_recipe_gives_them(stem, smallest):
    recipe = detection_recipe("detect", "fpn", "4").but(
        None, {"encoder": EncoderSpec(name="resnet10", width=0.125, stem=stem)}
    )
    detector = TASKS["detect"].build(build_headless(recipe.encoder), recipe, Labels(("box",)))
    assert [size for (size,) in detector.settings.anchor_sizes] == [smallest * 2**level for level in range(5)]
    recipe = recipe.but(None, {"detector.anchor_sizes": (8, 16, 24, 32, 64)})
    detector = TASKS["detect"].build(build_headless(recipe.encoder), recipe, Labels(("box",)))
    assert [size for (size,) in detector.settings.anchor_sizes] == [8, 16, 24, 32, 64]


def test_cityscapes_has_the_settings_of_detectron2():
    recipe = detection_recipe("cityscapes", "fpn", "24k")
    assert (recipe.optim.lr, recipe.optim.batch_size, recipe.optim.at) == (0.01, 8, (18_000,))
    assert (recipe.sizes.shorter[0], recipe.sizes.shorter[-1], recipe.sizes.longest) == (800, 1024, 2048)
    with pytest.raises(RecipeError, match="unknown schedule '1x': known are: 24k, a number of iterations"):
        detection_recipe("cityscapes", "fpn", "1x")


def test_frozen_bn_has_none_in_new_layers():
    """As Detectron2's configurations with frozen BN, such as the paper's baseline on LVIS."""
    recipe = detection_recipe("lvis", "fpn", "1x")
    assert [recipe.but(None, {"bn": bn}).settings(3, 0).fpn_norm for bn in ("sync", "frozen")] == [True, False]


def test_densepose_has_the_settings_of_the_paper():
    recipe = detection_recipe("densepose", "fpn", "s1x")
    assert (recipe.optim.lr, recipe.optim.at, recipe.optim.iterations) == (0.002, (100_000, 120_000), 130_000)
    assert recipe.sizes.flip == 0.5
    c4 = recipe.but(None, {"arch": "c4", "encoder": EncoderSpec(name="resnet50", width=0.125)})
    encoder = build_headless(c4.encoder)
    with pytest.raises(RecipeError, match="densepose needs --arch fpn"):
        TASKS["densepose"].build(encoder, c4, Labels(("person",)))


def test_densepose_names_the_files_that_it_needs_and_does_not_flip_without_the_symmetries(tmp_path):
    task, file = TASKS["densepose"], make_bodies(tmp_path / "data", 3, seed=0)
    scenes = task.read(file, ReadOptions(), format=None)
    data, recipe = TransferData(scenes, scenes), detection_recipe("densepose", "fpn", "4")
    with pytest.raises(RecipeError, match="--body-surface FOLDER is missing: it needs the files SMPL_subdiv"):
        task.fit(recipe, data)
    task = task.with_body_surface(tmp_path)
    with pytest.raises(AnnotationError, match=r"SMPL_subdiv\.mat: no such file"):
        task.fit(recipe, data)
    write_surface(tmp_path)
    fitted = task.fit(recipe, data)
    assert isinstance(fitted, DetectionRecipe)
    assert fitted.sizes.flip == 0
    assert "without flipped images (no UV_symmetry_transforms.mat in the folder of --body-surface)" in task.describe(
        fitted
    )
    write_symmetry(tmp_path)
    assert task.fit(recipe, data) == recipe
    with pytest.raises(RecipeError, match="only the task densepose takes --body-surface"):
        TASKS["detect"].with_body_surface(tmp_path)


def test_a_dense_pose_prediction_has_a_map_for_each_box(tmp_path):
    file = make_bodies(tmp_path, 1, seed=0)
    recipe = detection_recipe("densepose", "fpn", "4").but("tiny", SMALL)
    model = TASKS["densepose"].build(build_headless(recipe.encoder), recipe, Labels(("person",)))
    with torch.no_grad():  # every proposal is a person
        model.heads.box_predictor.cls_score.bias[0] += 5
    image = decode(TASKS["densepose"].read(file, ReadOptions(), format=None).scenes[0].path)
    found = TASKS["densepose"].predict(model.eval(), recipe, image)
    assert isinstance(found, BodyResults)
    assert len(found.boxes) > 0
    assert len(found.boxes) == len(found.parts) == len(found.uv)
    for box, part, uv in zip(found.boxes, found.parts, found.uv, strict=True):
        assert part.shape == (max(int(box[3] - box[1]), 1), max(int(box[2] - box[0]), 1))
        assert uv.shape == (2, *part.shape)
        assert uv.min() >= 0
        assert uv.max() <= 1
