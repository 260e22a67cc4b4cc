"""Fine-tuning: schedule, mini-batches, and a run that is killed ends with the bits of one that is not."""

import json
import shutil

import numpy as np
import pytest
import torch

import moco
from moco.encoders import build_headless
from moco.files import read_json
from moco.recipe import RecipeError
from moco.train.options import RunOptions
from moco.train.overwrite_run import remove_run
from moco.train.run_folder import RunFolder
from moco.transfer.detection.loader import SceneLoader
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.recipes import SCHEDULES, detection_recipe
from moco.transfer.detection.score import detect_in_scenes
from moco.transfer.models.flip import flip, mirror_keypoint_order
from moco.transfer.plan_run import plan_transfer
from moco.transfer.recipe import TuneSpec
from moco.transfer.saved_model import load_model
from moco.transfer.task_interface import TransferData
from moco.transfer.task_registry import TASKS
from moco.weights.encoder_folder import load_encoder
from moco.weights.loaded_weights import WeightsError
from tests.transfer.kill_runs import have_equal_models, killed_at
from tests.transfer.tiny_detector import SHORT, SPEC, TINY, make_data, run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> TransferData:
    return make_data(tmp_path_factory.mktemp("scenes"))


def test_the_learning_rate_is_detectron2s():
    """WarmupMultiStepLR: base * gamma^steps passed * (factor (1 - a) + a), a = iteration / warm-up."""
    optim = SCHEDULES["24k"]
    assert optim.lr_at(0) == pytest.approx(0.02 * 0.001)
    assert optim.lr_at(50) == pytest.approx(0.02 * (0.001 * 0.5 + 0.5))
    assert [optim.lr_at(i) for i in (100, 17_999)] == [0.02, 0.02]
    assert optim.lr_at(18_000) == pytest.approx(0.002)
    assert optim.lr_at(22_000) == pytest.approx(0.0002)


def test_a_shorter_schedule_keeps_the_shares():
    assert SCHEDULES["24k"].with_iterations(240) == TuneSpec(lr=0.02, at=(180, 220), warmup=1, iterations=240)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(RecipeError, match="unknown schedule '3x'"):
        detection_recipe("detect", "fpn", "3x")


def test_mini_batches_are_the_same_from_any_step_on_and_for_any_number_of_workers(data):
    whole = list(SceneLoader(data.train, TINY, steps=range(4), workers=0))
    later = list(SceneLoader(data.train, TINY, steps=range(2, 4), workers=2))
    for a, b in zip(whole[2:], later, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert all(torch.equal(x, y) for x, y in zip(a.inputs[0], b.inputs[0], strict=True))
        assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a.inputs[1], b.inputs[1], strict=True))


def test_the_objects_of_a_flipped_image_are_flipped_too():
    image = torch.zeros(3, 4, 10, dtype=torch.uint8)
    image[:, 1:3, 2:5] = 255
    target = {
        "boxes": torch.tensor([[2.0, 1, 5, 3]]), "labels": torch.tensor([0]),
        "masks": [[np.array([2.0, 1, 5, 1, 5, 3])]], "keypoints": torch.tensor([[[2.5, 1, 2], [4.5, 1, 1], [0, 0, 0]]]),
    }  # fmt: skip
    mirrored, found = flip(image, target, ("left_eye", "right_eye", "nose"))
    x0, y0, x1, y1 = found["boxes"][0].int().tolist()
    assert (x0, y0, x1, y1) == (5, 1, 8, 3)
    assert mirrored[:, y0:y1, x0:x1].float().mean() == 255
    assert found["masks"][0][0].tolist() == [8, 1, 5, 1, 5, 3]
    assert found["keypoints"][0].tolist() == [[5.5, 1, 1], [7.5, 1, 2], [0, 0, 0]]  # the left eye is the right one now


def test_keypoints_without_a_counterpart_stay():
    assert mirror_keypoint_order(("nose", "left_ear", "right_ear", "left_tail"), 4) == [0, 2, 1, 3]
    assert mirror_keypoint_order((), 3) == [0, 1, 2]


def test_norm_layers_have_no_weight_decay(data, tmp_path):
    from moco.transfer.fine_tune import new_model

    job = plan_transfer(TASKS["detect"], data, tmp_path / "run", torch.device("cpu"), RunOptions(device="cpu"), TINY)
    detector = new_model(build_headless(SPEC), job)
    decayed, norms = TASKS["detect"].optimizer(detector, TINY).param_groups
    assert decayed["weight_decay"] == 1e-4
    assert norms["weight_decay"] == 0
    assert {x.ndim for x in norms["params"]} == {1}
    assert len(decayed["params"]) + len(norms["params"]) == len(list(detector.parameters()))


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(data, tmp_path):
    whole = run(data, tmp_path / "whole")
    assert set(whole) == {"AP", "AP50", "AP75", "AP_voc", "AP50_voc", "AP75_voc"}
    with killed_at(2):
        run(data, tmp_path / "killed", save_every=1)
    assert run(data, tmp_path / "killed", save_every=1) == pytest.approx(whole, nan_ok=True)
    assert have_equal_models(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_is_not_trained_again_and_another_recipe_is_refused(data, tmp_path):
    scores = run(data, tmp_path / "run")
    assert run(data, tmp_path / "run") == pytest.approx(scores, nan_ok=True)
    with pytest.raises(RecipeError, match=r"optim\.lr: 0\.02 -> 0\.01"):
        run(data, tmp_path / "run", TINY.but(None, {"optim.lr": 0.01}))


@pytest.mark.parametrize("name", ["scores.json", "model/model.safetensors", "model/config.json"])
def test_a_damaged_result_of_a_finished_run_is_refused_and_written_again_once_it_is_moved_away(data, tmp_path, name):
    out = tmp_path / "run"
    scores, file = run(data, out, SHORT), out / name
    before = file.read_bytes()
    file.write_bytes(before.replace(b"0", b"1"))
    with pytest.raises(RecipeError, match=f"{name} is damaged"):
        run(data, out, SHORT)
    file.unlink()
    assert run(data, out, SHORT) == pytest.approx(scores, nan_ok=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{}", '{"AP": 1}', '{"AP": "x"}'])
def test_scores_that_are_none_are_refused_though_an_older_version_has_listed_no_checksum(data, tmp_path, content):
    out = tmp_path / "run"
    run(data, out, SHORT)
    for note in ("finished.json", "saved.json"):
        (out / note).write_text(json.dumps({k: v for k, v in read_json(out / note).items() if k != "sha256"}))
    (out / "scores.json").write_text(content)
    with pytest.raises(RecipeError, match="does not hold the scores"):
        run(data, out, SHORT)


RESULTS = ("scores.json", "model/model.safetensors", "model/config.json")
DETAILS = ("details.json", "predictions.png", "precision_recall.png", "confusions.png")


@pytest.mark.parametrize("name", [*RESULTS, *DETAILS])
def test_a_file_of_the_user_in_an_unfinished_run_is_refused_and_stays(data, tmp_path, name):
    out = tmp_path / "run"
    run(data, out, SHORT)
    for one in ("finished.json", *RESULTS, *DETAILS):
        (out / one).unlink(missing_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(RecipeError, match=f"{name} is not from this run"):
        run(data, out, SHORT)
    assert (out / name).read_text() == "mine"


def test_an_unfinished_run_with_its_own_details_writes_them_again(data, tmp_path):
    out = tmp_path / "run"
    run(data, out, SHORT)
    before = {name: (out / name).read_bytes() for name in DETAILS if (out / name).exists()}
    assert before
    (out / "scores.json").unlink()
    run(data, out, SHORT)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_overwrite_keeps_files_of_the_user_with_the_names_of_details_and_pictures(data, tmp_path):
    out = tmp_path / "run"
    run(data, out, SHORT)
    for name in DETAILS:
        (out / name).write_text("of the user")
    renamed = remove_run(RunFolder(out, DetectionRecipe, "model"))
    assert not any((out / name).exists() for name in DETAILS)
    kept = [name for name in renamed if (out / name).read_text(errors="replace") == "of the user"]
    assert len(kept) == len(DETAILS)


def test_the_model_of_another_run_is_not_loaded_as_this_runs(data, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    run(data, out, SHORT)
    run(data, other, SHORT.but(None, {"seed": 7}))
    moco.load(out)
    shutil.rmtree(out / "model")
    shutil.copytree(other / "model", out / "model")
    with pytest.raises(WeightsError, match="is not from this run"):
        moco.load(out)
    assert moco.load(out / "model").recipe.seed == 7


def test_changed_annotations_are_refused_on_resume(data, tmp_path):
    run(data, tmp_path / "run")
    changed = TransferData(data.train, data.train)  # the images to test on
    with pytest.raises(RecipeError, match="data: "):
        run(changed, tmp_path / "run")


def test_a_saved_detector_finds_what_the_trained_one_found(data, tmp_path):
    run(data, tmp_path / "run")
    tuned = load_model(tmp_path / "run" / "model")
    assert tuned.classes == data.train.classes
    again = load_model(tmp_path / "run" / "model")
    scene = data.test.scenes[0]
    assert isinstance(again.recipe, DetectionRecipe)
    (expected,) = detect_in_scenes(again.model, [scene], again.recipe, workers=0)
    from moco.data.decode.decode import decode

    found = tuned.predict(decode(scene.path))
    assert np.array_equal(found.boxes, expected.boxes)


def test_a_damaged_model_is_refused(data, tmp_path):
    run(data, tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        load_model(tmp_path / "run" / "model")


def test_too_few_images_for_a_mini_batch_are_refused(data, tmp_path):
    with pytest.raises(RecipeError, match=r"batch_size must be at most the number of training images \(6\)"):
        run(data, tmp_path / "run", TINY.but(None, {"optim.batch_size": 7}))


def test_a_finished_run_has_pictures_and_details(data, tmp_path):
    run(data, tmp_path / "run")
    details = json.loads((tmp_path / "run" / "details.json").read_text())
    assert set(details["boxes"]["AP by class"]) == set(data.test.classes)
    for name in ("predictions.png", "precision_recall.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    finished = {path.name for path in (tmp_path / "run").iterdir()}
    run(data, tmp_path / "run", TINY.but(None, {"optim.iterations": 1, "optim.at": ()}), overwrite=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == finished


def test_a_picture_that_cannot_be_drawn_does_not_fail_the_run(data, tmp_path, monkeypatch):
    from moco.transfer.detection import task

    def fails(*_):
        raise ValueError("no font")

    monkeypatch.setattr(task, "draw_detections", fails)
    assert run(data, tmp_path / "run")
    assert not (tmp_path / "run" / "predictions.png").exists()
    assert (tmp_path / "run" / "precision_recall.png").exists()


def test_moco_load_gives_the_model_of_a_run_and_commands_for_encoders_refuse_it(data, tmp_path):
    import moco
    from moco.transfer.saved_model import TunedModel

    run(data, tmp_path / "run", TINY.but(None, {"optim.iterations": 1, "optim.at": (), "precise_bn": 0}))
    image = np.zeros((64, 80, 3), dtype=np.uint8)
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        model = moco.load(folder, device="cpu")
        assert isinstance(model, TunedModel)
        assert len(model.predict(image).boxes) == len(model.predict(image).scores)
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        with pytest.raises(WeightsError, match="a fine-tuned model"):
            load_encoder(folder)
