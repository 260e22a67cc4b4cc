"""A checkpoint is whole or not there, and a damaged one is noticed."""

import io
import json
import os
import shutil
import sys

import pytest
import torch

from moco import files
from moco.files import append, write_atomically
from moco.train import checkpoint
from moco.train.checkpoint import CheckpointError, Clock, TrainState
from moco.train.console import Console
from moco.train.keep_checkpoints import prepare_for_resume
from tests.faults.step_marked_state import TensorState


def state(step: int) -> TrainState:
    return TrainState(TensorState(torch.full((1000,), float(step))), TensorState(), Clock(10, 100, step))


def test_a_saved_state_is_restored(tmp_path):
    checkpoint.save(tmp_path, state(7), recipe="{}")
    (other := state(0)).load_state_dict(checkpoint.read_checkpoint(checkpoint.newest_intact(tmp_path))["state"])
    assert other.clock.step == 7
    assert torch.equal(other.model.x, torch.full((1000,), 7.0))


def test_the_newest_three_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == [f"step_0000000{i}.pt" for i in (3, 4, 5)]


@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "empty"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, damage):
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
    with pytest.warns(UserWarning, match="using the one before"):
        found = checkpoint.newest_intact(tmp_path)
    assert checkpoint.read_checkpoint(found)["state"]["clock"]["step"] == 1


def test_if_all_checkpoints_are_damaged_an_error_is_raised(tmp_path):
    checkpoint.save(tmp_path, state(1), recipe="{}").write_bytes(b"")
    with pytest.raises(CheckpointError, match="can be used"), pytest.warns(UserWarning, match="long instead of"):
        checkpoint.newest_intact(tmp_path)


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoint.newest_intact(tmp_path) is None


def test_a_checkpoint_renamed_into_place_before_the_manifest_was_written_counts(tmp_path):
    checkpoint.save(tmp_path, state(1), recipe="{}")
    manifest = (tmp_path / "MANIFEST.json").read_text()
    checkpoint.save(tmp_path, state(2), recipe="{}")
    (tmp_path / "MANIFEST.json").write_text(manifest)
    assert checkpoint.newest_intact(tmp_path).name == "step_00000002.pt"


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "MANIFEST.json").write_text(
        json.dumps([{"name": "../other.pt", "step": 9, "size": 1, "sha256": "0" * 64}])
    )
    assert checkpoint.newest_intact(tmp_path) is None


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
        checkpoint.read_checkpoint(tmp_path / "step_00000001.pt")
    assert not (tmp_path / "canary").exists()


def test_keep_every_keeps_checkpoints_besides_the_newest(tmp_path):
    for step in range(1, 12):
        checkpoint.save(tmp_path, state(step), recipe="{}", keep=2, keep_every=4)
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == [
        f"step_{step:08d}.pt" for step in (4, 8, 10, 11)
    ]  # fmt: skip


def test_damaged_checkpoints_do_not_count_among_those_to_keep(tmp_path):
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    for step in (4, 5):
        (tmp_path / f"step_0000000{step}.pt").write_bytes(b"")
    checkpoint.save(tmp_path, state(4), recipe="{}")  # the run went on from step 3
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == ["step_00000003.pt", "step_00000004.pt"]
    assert sorted(path.name for path in tmp_path.glob("*.other")) == [f"step_0000000{step}.pt.other" for step in (4, 5)]
    assert checkpoint.read_checkpoint(checkpoint.newest_intact(tmp_path))["state"]["clock"]["step"] == 4


def test_after_the_step_of_a_damaged_checkpoint_two_intact_ones_stay(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}", keep=2)
    (tmp_path / "step_00000002.pt").write_bytes(b"")
    assert prepare_for_resume(tmp_path, 1) == []  # where the run goes on
    assert [entry["step"] for entry in json.loads((tmp_path / "MANIFEST.json").read_text())] == [1]
    checkpoint.save(tmp_path, state(3), recipe="{}", keep=2)
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == ["step_00000001.pt", "step_00000003.pt"]


def test_without_room_on_the_disk_a_checkpoint_is_not_started(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1), recipe="{}")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 9000, 9000))
    monkeypatch.setattr(checkpoint, "write_atomically", None)
    with pytest.raises(OSError, match="are free"):  # two tensors of 4,000 bytes, and a fifth more
        checkpoint.save(tmp_path, state(2), recipe="{}")
    assert checkpoint.newest_intact(tmp_path).name == "step_00000001.pt"


def test_a_checkpoint_is_saved_although_an_old_one_cannot_be_removed(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "planted")))
        checkpoint.save(tmp_path, state(4), recipe="{}")
    assert (tmp_path / "step_00000001.pt").exists()
    checkpoint.save(tmp_path, state(5), recipe="{}")
    assert not (tmp_path / "step_00000001.pt").exists()


class Full:
    """A file that takes so many writes, and then finds the disk full."""

    def __init__(self, left: int):
        self.left = left

    def write(self, content) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return len(content)


@pytest.mark.parametrize("left", range(5))
def test_a_full_disk_is_reported_although_torch_hides_it(tmp_path, left):
    content = {"x": torch.zeros(5000), "y": torch.zeros(5000)}
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", lambda file: torch.save(content, Full(left)))


def test_torch_save_hides_a_full_disk():
    with pytest.raises(RuntimeError, match="unexpected pos"):
        torch.save({"x": torch.zeros(5000)}, Full(1))


def test_records_are_appended_completely_or_not_at_all(tmp_path, monkeypatch):
    append(tmp_path / "log", b"one\n")
    write = files.os.write
    calls = []

    def short(descriptor, content):
        calls.append(content)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:2])

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", short)
        with pytest.raises(OSError, match="space"):
            append(tmp_path / "log", b"two\n")
    append(tmp_path / "log", b"three\n")
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"
    assert calls == [b"two\n", b"o\n"]


def test_a_console_whose_reader_has_ended_prints_nothing(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    stream = io.TextIOWrapper(os.fdopen(write, "wb", buffering=0), write_through=True)
    stream.mode = "w"  # as that of a process has
    with pytest.raises(BrokenPipeError):
        stream.write("text")
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console()
    console.box("plan", [("images", "3")])
    console.say("hello")
    console.live("step 1")
    assert console.stream.write("text") == 4
    stream.detach()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("name", ["step_00000002.pt", "MANIFEST.json"])
def test_a_checkpoint_without_read_permission_is_an_error_and_no_older_one_is_used(tmp_path, monkeypatch, error, name):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    refuse_reading(monkeypatch, tmp_path / name, error)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: {error.strerror}.*check owner, mode and disk"):
        checkpoint.newest_intact(tmp_path)


def refuse_reading(monkeypatch, file, error):
    real = type(file).open

    def refusing(path, *arguments, **more):
        if path == file:
            raise error
        return real(path, *arguments, **more)

    monkeypatch.setattr(type(file), "open", refusing)
    monkeypatch.setattr(type(file), "read_bytes", lambda path: refusing(path, "rb").read())


@pytest.mark.parametrize("listed", [False, True])
def test_a_folder_with_the_name_of_a_new_checkpoint_is_renamed(tmp_path, listed):
    if listed:
        checkpoint.save(tmp_path, state(3), recipe="{}")
        (tmp_path / "step_00000003.pt").unlink()
    (tmp_path / "step_00000003.pt").mkdir()
    (tmp_path / "step_00000003.pt" / "notes").write_text("mine")
    checkpoint.save(tmp_path, state(3), recipe="{}")
    assert (tmp_path / "step_00000003.pt.other" / "notes").read_text() == "mine"
    assert checkpoint.read_checkpoint(tmp_path / "step_00000003.pt")["state"]["clock"]["step"] == 3


def test_a_link_to_nowhere_with_the_name_of_a_new_checkpoint_is_renamed(tmp_path):
    (tmp_path / "step_00000003.pt").symlink_to(tmp_path / "nowhere")
    checkpoint.save(tmp_path, state(3), recipe="{}")
    assert (tmp_path / "step_00000003.pt.other").is_symlink()


def test_checkpoints_that_the_manifest_does_not_list_are_never_removed(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}")
    theirs = {"step_00000000.pt": b"older", "step_00000003.pt": b"next", "step_00000009.pt": b"later"}
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    assert prepare_for_resume(tmp_path, 2) == list(theirs)
    for step in (3, 4):
        checkpoint.save(tmp_path, state(step), recipe="{}", keep=2)
    contents = {path.name: path.read_bytes() for path in tmp_path.glob("step_*")}
    assert [name for name in sorted(contents) if contents[name] in theirs.values()] == [
        "step_00000000.pt", "step_00000003.pt.other", "step_00000009.pt",
    ]  # fmt: skip
    assert sorted(contents.keys() - theirs.keys()) == ["step_00000003.pt.other", "step_00000004.pt"]
    assert checkpoint.read_checkpoint(tmp_path / "step_00000003.pt")["state"]["clock"]["step"] == 3


def test_a_checkpoint_that_a_kill_left_unlisted_is_listed_when_the_run_resumes_from_it(tmp_path):
    checkpoint.save(tmp_path, state(1), recipe="{}")
    manifest = (tmp_path / "MANIFEST.json").read_text()
    checkpoint.save(tmp_path, state(2), recipe="{}")
    (tmp_path / "MANIFEST.json").write_text(manifest)
    assert prepare_for_resume(tmp_path, 2) == []
    for step in (3, 4):
        checkpoint.save(tmp_path, state(step), recipe="{}", keep=2)
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == ["step_00000003.pt", "step_00000004.pt"]


def test_a_checkpoint_that_a_kill_left_before_its_removal_is_removed_by_the_next_save(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), recipe="{}", keep=2)
    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "unlink", lambda *_, **__: 1 / 0)  # the kill
        with pytest.raises(ZeroDivisionError):
            checkpoint.save(tmp_path, state(3), recipe="{}", keep=2)
    checkpoint.save(tmp_path, state(4), recipe="{}", keep=2)
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == ["step_00000003.pt", "step_00000004.pt"]
