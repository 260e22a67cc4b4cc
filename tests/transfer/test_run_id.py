"""Fine-tuning runs have an id too, and do not resume from checkpoints of other runs."""

import shutil

import pytest

from moco.train.checkpoint import CheckpointError
from moco.weights.own_files import read_run_id
from moco.weights.read_checkpoint import read_checkpoint
from tests.transfer.tiny_detector import SHORT, make_data, run


def test_checkpoints_of_another_fine_tuning_run_with_the_same_recipe_are_not_used(tmp_path):
    data = make_data(tmp_path / "scenes")
    out, other = tmp_path / "run", tmp_path / "other"
    for folder in (out, other):
        run(data, folder, SHORT)
        assert read_checkpoint(folder / "checkpoints" / "step_00000001.pt")["run_id"] == read_run_id(folder)
    for name in ("finished.json", "scores.json"):
        (out / name).unlink()
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(other / "checkpoints", out / "checkpoints")
    with pytest.raises(CheckpointError, match="of another run"):
        run(data, out, SHORT)
