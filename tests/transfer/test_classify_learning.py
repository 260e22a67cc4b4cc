"""A narrow ResNet and a small ViT with random weights learn to tell generated shapes apart; shuffled, they do not."""

from pathlib import Path
from typing import Any

import pytest

from moco.transfer.transfer import transfer
from tests.transfer.draw_shape_classes import make_shapes

SETTINGS = {"optim.batch_size": 32, "images.size": 32, "images.eval_resize": 32, "images.crop_area": (0.7, 1.0)}
KINDS: dict[str, dict[str, Any]] = {
    "resnet18": SETTINGS | {
        "optim.epochs": None, "optim.iterations": 400, "optim.lr": 0.1, "encoder.width": 0.25, "encoder.stem": "3x3/2",
    },
    "vit_micro": SETTINGS | {
        "optim.epochs": None, "optim.iterations": 600, "optim.lr": 3e-3, "optim.lr_end": 1e-6, "encoder.patch": 4,
        "augment.mixup": 0.0, "augment.smoothing": 0.0,
    },
}  # fmt: skip
SCHEDULE = {"resnet18": "imagenet", "vit_micro": "v3-pets"}


def accuracy(folder: Path, model: str, *, shuffled: bool) -> float:
    """Top-1 on four classes of shapes that were not trained on. The ViT sees upright shapes, which it learns sooner."""
    turned = model == "resnet18"
    train = make_shapes(folder / "train", 400, seed=1, size=36, turned=turned, shuffled=shuffled)
    test = make_shapes(folder / "test", 50, seed=2, size=36, turned=turned)
    table = transfer(
        "classify", train, folder / "out", init={"random": "random"}, test=test, model=model,
        schedule=SCHEDULE[model], settings=KINDS[model], device="cpu", workers=1,
    )  # fmt: skip
    assert table.baseline is not None
    assert table.baseline.scores["top1"] == 25
    return table.rows[0].mean("top1")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute or two on an idle machine
@pytest.mark.parametrize("model", ["resnet18", pytest.param("vit_micro", marks=pytest.mark.extended)])
def test_a_classifier_learns_to_tell_shapes_apart(tmp_path, model):
    assert accuracy(tmp_path, model, shuffled=False) >= 90


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute or two on an idle machine
@pytest.mark.parametrize("model", ["resnet18", pytest.param("vit_micro", marks=pytest.mark.extended)])
def test_labels_that_do_not_depend_on_the_shapes_are_not_learned(tmp_path, model):
    assert accuracy(tmp_path, model, shuffled=True) < 50
