"""A narrow segmenter with random weights finds shapes in images that it has not seen (scores: docs/transfer.md)."""

from pathlib import Path

import pytest

from moco.transfer.comparison import TransferComparison
from moco.transfer.transfer import transfer
from tests.transfer.draw_shapes import make_shapes

SETTINGS = {
    "encoder.width": 0.125, "channels": 32, "crops.side": 129, "optim.batch_size": 4, "optim.lr": 0.05,
    "precise_bn": 20, "threads": 1,
}  # fmt: skip


def train_on_shapes(folder: Path, *, shift: int) -> TransferComparison:
    size, sides = (160, 128), (0.5, 0.85)
    train = make_shapes(folder / "train", 60, seed=0, size=size, sides=sides, shift=shift)
    test = make_shapes(folder / "test", 30, seed=1, size=size, sides=sides)
    return transfer(
        "segment", train, folder / "out", init={"random": "random"}, model="resnet50", test=test, schedule="300",
        settings=SETTINGS, device="cpu", workers=1,
    )  # fmt: skip


@pytest.mark.slow
def test_a_narrow_network_learns_to_find_shapes(tmp_path: Path):
    assert train_on_shapes(tmp_path, shift=0).rows[0].mean("mIoU") > 80


@pytest.mark.slow
def test_a_network_trained_on_the_masks_of_other_images_finds_no_shapes(tmp_path: Path):
    table = train_on_shapes(tmp_path, shift=1)
    assert table.rows[0].mean("mIoU") < 40
    assert table.baseline is not None
    assert table.baseline.scores["mIoU"] < 25  # at most one of 4 classes is found
