"""A narrow detector learns the keypoints of generated figures, and nothing from annotations of other images."""

from pathlib import Path

import pytest

from moco.transfer.readers.shared import ReadOptions
from moco.transfer.task_interface import TransferData
from moco.transfer.task_registry import TASKS
from tests.transfer.draw_figures import make_figures
from tests.transfer.learning import learn


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shuffle", "least", "most"), [(False, 50, 100), pytest.param(True, 0, 10, marks=pytest.mark.extended)]
)
def test_a_trained_detector_finds_keypoints_in_new_images(tmp_path: Path, shuffle: bool, least: float, most: float):
    """Measured: AP50 of keypoints 79.7, and 0.2 with shuffled annotations."""
    task = TASKS["keypoints"]
    files = [make_figures(tmp_path / str(seed), count, seed=seed) for seed, count in enumerate((150, 40))]
    data = TransferData(*(task.read(file, ReadOptions(), format=None) for file in files))
    scores = learn(task, data, tmp_path / "run", shuffle=shuffle, iterations=250, changes={"optim.lr": 0.02})
    assert least <= scores["AP50_keypoints"] <= most
