"""`moco transfer segment`: recipes, scores, a run that is killed and resumed, a saved model, errors."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from moco.cli import app
from moco.data.decode.decode import decode
from moco.data.sources.images import DataError
from moco.encoders.resnet import NETS, ResNet
from moco.recipe_error import RecipeError
from moco.transfer.comparison import TransferComparison
from moco.transfer.models.backbones import ResNetBody
from moco.transfer.models.fcn import FCN
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_semantic
from moco.transfer.saved_model import load_model
from moco.transfer.segmentation import loader
from moco.transfer.segmentation.recipes import segmentation_recipe
from moco.transfer.segmentation.score import count_pixels, score_segmenter
from moco.transfer.task_interface import TransferData
from moco.transfer.task_registry import TASKS
from moco.transfer.transfer import transfer
from tests.run_ranks import on_ranks
from tests.transfer.draw_shapes import make_shapes
from tests.transfer.kill_runs import have_equal_models, killed_at
from tests.transfer.sample_voc import voc
from tests.transfer.small_settings import SEGMENT as SETTINGS


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), 10, seed=0)


def run(data: Path, out: Path, settings: dict | None = None, **options) -> TransferComparison:
    options = {"schedule": "3", "device": "cpu", "workers": 1, **options}
    settings = SETTINGS | (settings or {})
    return transfer("segment", data, out, init={"random": "random"}, model="resnet50", settings=settings, **options)


def test_the_recipes_are_those_of_the_appendix():
    """A.5: VOC 30k iterations, lr 0.003, crop 513; Cityscapes 90k, 0.01, 769; x0.1 at 70 % and 90 % of training."""
    voc_recipe, cityscapes = (segmentation_recipe("fcn", name) for name in ("30k", "90k"))
    for recipe, lr, side, iterations in ((voc_recipe, 0.003, 513, 30_000), (cityscapes, 0.01, 769, 90_000)):
        optim, crops = recipe.optim, recipe.crops
        assert (optim.lr, optim.iterations, crops.side) == (lr, iterations, side)
        assert optim.at == (iterations * 7 // 10, iterations * 9 // 10)
        assert (optim.batch_size, optim.weight_decay, optim.momentum, recipe.channels) == (16, 1e-4, 0.9, 256)
        assert (crops.smallest, crops.largest, crops.flip) == (0.5, 2.0, 0.5)
        assert [optim.lr_at(i) for i in (0, optim.at[0], optim.at[1])] == pytest.approx([lr, lr / 10, lr / 100])


def test_an_unknown_schedule_or_network_is_refused():
    with pytest.raises(RecipeError, match="unknown schedule '40k'"):
        segmentation_recipe("fcn", "40k")
    with pytest.raises(RecipeError, match="arch"):
        segmentation_recipe("c4", "30k")
    assert segmentation_recipe("fcn", "300").optim.at == (210, 270)


class ByColour(FCN):
    """A segmenter that knows the colours of the shapes."""

    def __init__(self) -> None:
        super().__init__(ResNetBody(ResNet(NETS["resnet50"], width=0.0625)), 4, channels=8)

    def predict(self, images):
        return [torch.where(x.amax(0) > 150, x.argmax(0) + 1, 0).to(torch.uint8) for x in images]


def test_a_segmenter_without_mistakes_has_100_percent_and_one_image_is_in_memory_after_the_other(shapes, monkeypatch):
    read, alive, most = loader.read_pair, weakref.WeakSet(), 0

    class Pixels(np.ndarray):
        """An array that is counted while it is alive."""

    def counted(*arguments):
        nonlocal most
        image, labels = read(*arguments)
        image = image.view(Pixels)
        alive.add(image)
        most = max(most, len(alive))
        return image, labels

    monkeypatch.setattr(loader, "read_pair", counted)
    monkeypatch.setattr(Pixels, "__hash__", object.__hash__, raising=False)
    scores = score_segmenter(ByColour(), read_semantic(shapes), workers=1)
    assert (scores["mIoU"], scores["pixel_accuracy"], scores["class_accuracy"]) == (100, 100, 100)
    assert {name for name in scores if name.startswith("IoU ")} == {"IoU ground", "IoU box", "IoU disc", "IoU triangle"}
    assert most <= 4


def test_the_baseline_is_the_most_frequent_class_of_training_by_hand(tmp_path):
    def pair(name: str, labels: list[list[int]]) -> Path:
        for folder, values in (("images", np.zeros((2, 4, 3))), ("masks", np.array(labels))):
            (tmp_path / name / folder).mkdir(parents=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / folder / "a.png")
        (tmp_path / name / "classes.txt").write_text("ground\ntree\nwater\n")
        return tmp_path / name

    train = read_semantic(pair("train", [[1, 1, 1, 255], [0, 0, 255, 255]]))
    test = read_semantic(pair("test", [[0, 0, 0, 0], [0, 1, 255, 255]]))
    found = TASKS["segment"].baseline(TransferData(train, test))
    assert found is not None
    assert found.name == "all tree"
    assert found.scores["mIoU"] == pytest.approx(100 * (0 + 1 / 6) / 2)  # water is neither there nor predicted
    assert found.scores["pixel_accuracy"] == pytest.approx(100 / 6)
    assert train.summary.pixels.tolist() == [2, 3, 0]


def test_the_table_has_the_scores_and_the_baseline(shapes, tmp_path):
    table = run(shapes, tmp_path / "out")
    assert list(table.metrics) == ["mIoU", "pixel_accuracy"]
    assert table.baseline is not None
    assert f"all ground{table.baseline.scores['mIoU']:>18.1f}" in str(table)
    written = json.loads((tmp_path / "out" / "table.json").read_text())
    assert written["baseline"]["name"] == "all ground"
    assert written["baseline"]["scores"]["mIoU"] == table.baseline.scores["mIoU"]


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(shapes, tmp_path):
    whole = run(shapes, tmp_path / "whole")
    with killed_at(2):
        run(shapes, tmp_path / "killed", save_every=1)
    again = run(shapes, tmp_path / "killed", save_every=1)
    assert again.rows[0].trials == whole.rows[0].trials
    assert have_equal_models(*(tmp_path / name / "random" / "trial_0" for name in ("whole", "killed")))


def test_a_saved_model_predicts_what_was_scored(shapes, tmp_path):
    table = run(shapes, tmp_path / "out", test=shapes)
    tuned = load_model(tmp_path / "out/random/trial_0/model")
    scenes = read_semantic(shapes)
    assert tuned.classes == scenes.classes
    assert score_segmenter(tuned.model, scenes, workers=0) == table.rows[0].trials[0]  # pyright: ignore
    image = decode(scenes.scenes[0].path)
    found = tuned.predict(image)
    assert (found.shape, found.dtype) == (image.shape[:2], np.uint8)
    assert tuned.predict(image[:33, :21]).shape == (33, 21)


def test_a_run_leaves_a_picture_of_its_hardest_images_and_the_confusion_matrix(shapes, tmp_path):
    table = run(shapes, tmp_path / "out", test=shapes)
    folder = tmp_path / "out/random/trial_0"
    with Image.open(folder / "predictions.png") as picture:
        assert min(picture.size) > 500
    details = json.loads((folder / "details.json").read_text())
    counts = np.array(details["pixels by true and predicted class"])
    scenes = read_semantic(shapes)
    assert counts.sum(axis=1).tolist() == scenes.summary.pixels.tolist()
    assert 100 * counts.trace() / counts.sum() == pytest.approx(table.rows[0].trials[0]["pixel_accuracy"])
    _, wrong = count_pixels(ByColour(), scenes, workers=0)
    assert wrong.tolist() == [0] * 10


def test_two_ranks_have_the_losses_and_scores_of_one_process(shapes, tmp_path):
    one = run(shapes, tmp_path / "one", {"optim.lr": 1e-4})

    def worker(rank: int) -> dict[str, float]:
        table = run(shapes, tmp_path / "two", {"optim.lr": 1e-4})
        return table.rows[0].trials[0]

    scores = on_ranks(worker, 2, tmp_path)[0]
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "random/trial_0/metrics.jsonl").open()]
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert scores["pixel_accuracy"] == pytest.approx(one.rows[0].trials[0]["pixel_accuracy"], abs=1)


def test_bad_labels_are_refused_before_anything_is_written(tmp_path):
    shapes = make_shapes(tmp_path / "shapes", 6, seed=0)
    mask = shapes / "masks" / "0002.png"
    good = mask.read_bytes()
    for labels, message in (
        (np.full((72, 96), 4), r"0002\.png, 0002: has pixels with values that are no class: \[4\]"),
        (np.zeros((72, 90)), r"0002\.png, 0002: has 90 x 72 pixels, its image 96 x 72"),
    ):
        Image.fromarray(labels.astype(np.uint8)).save(mask)
        with pytest.raises(AnnotationError, match=message):
            run(shapes, tmp_path / "out")
    mask.write_bytes(good[:60])
    with pytest.raises(AnnotationError, match=r"0002\.png, 0002: cannot be read"):
        run(shapes, tmp_path / "out")
    for file in (shapes / "masks").iterdir():
        Image.fromarray(np.full((72, 96), 255, dtype=np.uint8)).save(file)
    with pytest.raises(DataError, match=r"no pixel of \d images to train on has a class: all labels are 255"):
        run(shapes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_labels_are_refused_on_resume(tmp_path):
    shapes = make_shapes(tmp_path / "shapes", 6, seed=0)
    run(shapes, tmp_path / "out")
    mask = np.asarray(Image.open(shapes / "masks" / "0000.png")).copy()
    mask[0, 0] = 3
    Image.fromarray(mask).save(shapes / "masks" / "0000.png")
    with pytest.raises(RecipeError, match="data: "):
        run(shapes, tmp_path / "out")


def test_networks_that_cannot_be_dilated_are_refused(shapes, tmp_path):
    with pytest.raises(RecipeError, match="segment needs a ResNet of ours with bottleneck blocks"):
        transfer(
            "segment", shapes, tmp_path, init={"a": "random"}, model="resnet18", settings={"optim.batch_size": 2},
            schedule="1", device="cpu",
        )  # fmt: skip


def test_a_dry_run_on_voc_writes_nothing(tmp_path):
    voc(tmp_path / "VOCdevkit")
    voc(tmp_path / "VOCdevkit", split="val")
    arguments = ["transfer", "segment", "--data", str(tmp_path / "VOCdevkit"), "--split", "train", "--test-split",
                 "val", "--init", "random", "--model", "resnet50", "--batch-size", "2", "--schedule", "5",
                 "--out", str(tmp_path / "out"), "--device", "cpu", "--dry-run"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 images to train on, 2 to test on" in result.output
    assert "segment, resnet50 fcn, BN sync" in result.output
    assert not (tmp_path / "out").exists()
