"""A checkpoint is whole or not there, and a damaged one is noticed."""

import json
from dataclasses import dataclass, field

import pytest
import torch

from moco.files import write_atomically
from moco.train import checkpoint
from moco.train.checkpoint import CheckpointError, Clock, TrainState


@dataclass
class Box:
    x: torch.Tensor = field(default_factory=lambda: torch.arange(1000.0))

    def state_dict(self):
        return {"x": self.x}

    def load_state_dict(self, state_dict):
        self.x = state_dict["x"]


def state(step: int) -> TrainState:
    return TrainState(Box(torch.full((1000,), float(step))), Box(), Clock(10, 100, step))


def test_what_is_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path, state(7), recipe="{}")
    other = state(0)
    other.load_state_dict(checkpoint.load(checkpoint.newest(tmp_path))["state"])
    assert other.clock.step == 7
    assert torch.equal(other.model.x, torch.full((1000,), 7.0))


def test_the_newest_three_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == [f"step_0000000{i}.pt" for i in (3, 4, 5)]


@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage):
    checkpoint.save(tmp_path, state(1), recipe="{}")
    path = checkpoint.save(tmp_path, state(2), recipe="{}")
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    with pytest.warns(UserWarning, match="taking the one before"):
        found = checkpoint.newest(tmp_path)
    assert checkpoint.load(found)["state"]["clock"]["step"] == 1


def test_no_whole_checkpoint_among_several_is_an_error(tmp_path):
    checkpoint.save(tmp_path, state(1), recipe="{}").write_bytes(b"")
    with pytest.raises(CheckpointError, match="readable"), pytest.warns(UserWarning, match="long instead of"):
        checkpoint.newest(tmp_path)


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_renamed_into_place_before_the_manifest_was_written_counts(tmp_path):
    checkpoint.save(tmp_path, state(1), recipe="{}")
    manifest = (tmp_path / "MANIFEST.json").read_text()
    checkpoint.save(tmp_path, state(2), recipe="{}")
    (tmp_path / "MANIFEST.json").write_text(manifest)
    assert checkpoint.newest(tmp_path).name == "step_00000002.pt"


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "MANIFEST.json").write_text(
        json.dumps([{"name": "../other.pt", "step": 9, "size": 1, "sha256": "0" * 64}])
    )
    assert checkpoint.newest(tmp_path) is None


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def fail(file):
        file.write(b"new, half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        write_atomically(tmp_path / "a", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_hostile_checkpoint_executes_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"format": 1, "state": Hostile()}, tmp_path / "step_00000001.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "step_00000001.pt")
    assert not (tmp_path / "canary").exists()
