"""A checkpoint is removed only if its content is the one that the manifest lists."""

import json
from pathlib import Path

import pytest

from moco.train import checkpoint
from moco.train.keep_checkpoints import prepare_for_resume
from tests.faults.damaged_checkpoints import state


@pytest.mark.parametrize("same_size", [False, True])
@pytest.mark.parametrize("step", [1, 3])
def test_a_file_of_the_user_with_the_name_of_a_listed_checkpoint_is_never_removed(tmp_path, step, same_size):
    for saved in (1, 2, 3):
        checkpoint.save(tmp_path, state(saved), recipe="{}")
    mine = tmp_path / f"step_0000000{step}.pt"
    content = b"mine".ljust(mine.stat().st_size if same_size else 0)
    mine.write_bytes(content)
    checkpoint.save(tmp_path, state(3), recipe="{}", keep=2)  # replaces that of step 3, removes that of step 1
    assert mine.with_name(f"{mine.name}.other").read_bytes() == content
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == ["step_00000002.pt", "step_00000003.pt"]
    assert [entry["step"] for entry in json.loads((tmp_path / "MANIFEST.json").read_text())] == [1] * (step == 3) + [
        2,
        3,
    ]


def test_a_file_of_the_user_with_the_name_of_a_later_checkpoint_is_renamed_on_resume(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    (tmp_path / "step_00000002.pt").write_bytes(b"mine")
    assert prepare_for_resume(tmp_path, 1) == []
    assert (tmp_path / "step_00000002.pt.other").read_bytes() == b"mine"


def test_a_listed_file_that_cannot_be_read_stays_and_the_checkpoint_is_saved(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    opened = Path.open

    def fails(path, *arguments, **named):
        if path.name == "step_00000001.pt":
            raise OSError(5, "planted")
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fails)
        checkpoint.save(tmp_path, state(3), recipe="{}", keep=2)
    assert (tmp_path / "step_00000001.pt.other").exists()
    assert checkpoint.newest_intact(tmp_path).name == "step_00000003.pt"
