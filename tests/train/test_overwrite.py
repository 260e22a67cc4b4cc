"""--overwrite removes the files of a run, all or none, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from moco.recipe import Recipe
from moco.train import overwrite_run
from moco.train.existing_folder import AFTER_THE_FIRST_STEP, BEFORE_THE_FIRST_STEP, State, state_of
from moco.train.run_folder import RunError, RunFolder
from tests.train.run_folders import begin, contents, whole


def test_overwrite_leaves_an_empty_run_and_all_files_of_the_user(tmp_path, tiny):
    out = tmp_path / "run"
    whole(out, tiny)
    theirs = {
        "notes.txt", "manifest_of_my_dataset.csv", "manifest.jsonl", "encoder/mine.txt", "checkpoints/step_best.pt",
        "checkpoints/step_4.pt", "nan/step_00000002/mine.txt", "nan/step_x/facts.json", "nan/facts.json",
    }  # fmt: skip
    for name in theirs:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    assert begin(out, tiny, overwrite=True) is State.NOT_STARTED
    kept = theirs | {"recipe.json", "init.json", "provenance.json", "saved.json"}
    assert set(contents(out)) == kept
    assert all(contents(out)[name] == b"mine" for name in theirs)
    assert state_of(RunFolder(out)) is State.NOT_STARTED


def test_overwrite_removes_the_report_of_a_discarded_step(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    begin(tmp_path / "run", tiny, overwrite=True)
    assert list((tmp_path / "run" / "nan").iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoints", "encoder", "nan", "nan/step_00000002", "nan/step_00000007"])
def test_overwrite_follows_no_link_to_a_folder(tmp_path, tiny, name):
    out, home = tmp_path / "run", tmp_path / "home"
    whole(out, tiny)
    home.mkdir()
    for file in ("facts.json", "checkpoint.pt", "step_00000009.pt", "model.safetensors"):
        (home / file).write_text("precious")
    (home / "step_00000002").mkdir()
    (home / "step_00000002" / "facts.json").write_text("precious")
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).symlink_to(home)
    before, inside = contents(home), contents(out)
    with pytest.raises(RunError, match="is a link"):
        begin(out, tiny, overwrite=True)
    assert contents(home) == before
    assert contents(out) == inside


@pytest.mark.parametrize(
    "name", ["finished.json", "scores.json", "encoder/config.json", "nan/step_00000002/facts.json"]
)
def test_overwrite_renames_a_link_to_a_file_and_keeps_the_file(tmp_path, tiny, name):
    out, precious = tmp_path / "run", tmp_path / "precious"
    whole(out, tiny)
    precious.write_text("precious")
    (out / name).unlink()
    (out / name).symlink_to(precious)
    begin(out, tiny, overwrite=True)
    assert precious.read_text() == "precious"
    assert not os.path.lexists(out / name)
    assert os.readlink(out / f"{name}.other") == str(precious)


@pytest.mark.parametrize("name", ["scores.json", "encoder/README.md", "nan/step_00000002/facts.json", "saved.json"])
def test_a_folder_with_the_name_of_a_runs_file_is_refused_before_anything_is_removed(tmp_path, tiny, name):
    out = tmp_path / "run"
    whole(out, tiny)
    (out / name).unlink()
    (out / name).mkdir()
    (out / name / "thesis.tex").write_text("mine")
    before = contents(out)
    with pytest.raises(RunError, match="is a folder"):
        begin(out, tiny, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("which", [0, 5, 13])
def test_if_a_file_cannot_be_removed_the_old_run_stays_complete(tmp_path, tiny, monkeypatch, which):
    out = tmp_path / "run"
    whole(out, tiny)
    before, rename, calls = contents(out), os.rename, []

    def failing(source, target):
        calls.append(source)
        if len(calls) == which + 1:
            raise PermissionError(1, "Operation not permitted", str(source))
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(overwrite_run.os, "rename", failing)
        with pytest.raises(RunError, match="Nothing has changed"):
            begin(out, tiny, overwrite=True)
    assert contents(out) == before
    assert begin(out, tiny) is State.FINISHED


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


def kill_at(monkeypatch: pytest.MonkeyPatch, out: Path, recipe: Recipe, at: int) -> bool:
    """Overwrite, and be killed at the `at`-th change of the folder; whether it came to that."""
    calls = []

    def counted(work):
        def counting(*given, **named):
            calls.append(given)
            if len(calls) == at:
                raise Killed
            return work(*given, **named)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(overwrite_run.os, "rename", counted(os.rename))
        patch.setattr(overwrite_run.Path, "unlink", counted(Path.unlink))
        patch.setattr(overwrite_run, "write_json", counted(overwrite_run.write_json))
        try:
            begin(out, recipe, overwrite=True)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("at", [1, 2, 9, 17, 18, 19, 20, 26, 35])
def test_a_kill_while_overwriting_leaves_the_old_run_or_an_empty_one(tmp_path, tiny, monkeypatch, at):
    out = tmp_path / "run"
    whole(out, tiny)
    before = contents(out)
    assert kill_at(monkeypatch, out, tiny, at)
    there = begin(out, tiny)
    if there is State.FINISHED:
        assert contents(out) == before
    else:
        assert there is State.NOT_STARTED
        assert set(contents(out)) == {"recipe.json", "init.json", "provenance.json", "saved.json"}


@pytest.mark.parametrize("name", [".tmp-old", ".tmp-old-train.log", "checkpoints/.tmp-old-MANIFEST.json"])
def test_a_folder_that_is_no_run_keeps_files_with_names_of_a_removal(tmp_path, tiny, name):
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(RunError, match="has other files"):
        begin(out, tiny)
    assert contents(out) == before
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_mark_of_a_removal_that_was_not_written_by_a_run_is_refused(tmp_path, tiny, kind):
    out = tmp_path / "run"
    whole(out, tiny)
    note = out / ".tmp-old"
    {"folder": note.mkdir, "file": lambda: note.write_text("mine"), "link": lambda: note.symlink_to("x")}[kind]()
    before = contents(out)
    with pytest.raises(RunError, match="was not written by moco"):
        begin(out, tiny)
    assert contents(out) == before


@pytest.mark.parametrize("name", [".tmp-old-curves.png", ".tmp-old-train.log", "checkpoints/.tmp-old-MANIFEST.json"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_users_file_with_a_name_of_a_removal_is_neither_renamed_nor_deleted(
    tmp_path, tiny, monkeypatch, name, interrupted
):
    out = tmp_path / "run"
    whole(out, tiny, finishes=False)
    (out / "train.log").unlink(missing_ok=True)
    if interrupted:
        (out / "checkpoints" / "MANIFEST.json").unlink()
        assert kill_at(monkeypatch, out, tiny, 3)
    (out / name).write_text("mine")
    begin(out, tiny)
    assert (out / name).read_text() == "mine"


def test_a_users_file_that_is_in_the_way_of_a_removal_is_refused_and_stays(tmp_path, tiny):
    whole(tmp_path, tiny)
    (tmp_path / ".tmp-old-train.log").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"\.tmp-old-train\.log has a name that --overwrite needs"):
        begin(tmp_path, tiny, overwrite=True)
    assert contents(tmp_path) == before
    assert begin(tmp_path, tiny) is State.FINISHED


def test_a_users_temporary_file_in_an_otherwise_empty_folder_is_refused_and_stays(tmp_path, tiny):
    (tmp_path / ".tmp-1-ab").write_text("mine")
    with pytest.raises(RunError, match="has other files"):
        begin(tmp_path, tiny)
    assert (tmp_path / ".tmp-1-ab").read_text() == "mine"


NAMES = (
    *(name for name in AFTER_THE_FIRST_STEP if "/" not in name), *BEFORE_THE_FIRST_STEP, "finished.json", "recipe.json",
    "encoder/model.safetensors", "encoder/config.json", "encoder/README.md", "model/model.safetensors",
    "checkpoints/step_00000004.pt", "checkpoints/step_00000009.pt", "nan/step_00000002/facts.json",
    "nan/step_00000002/checkpoint.pt",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_overwrite_renames_a_users_file_that_has_the_name_of_a_runs_file(tmp_path, tiny, name):
    out = tmp_path / "run"
    whole(out, tiny)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_bytes(b"of the user")
    begin(out, tiny, overwrite=True)
    assert (out / f"{name}.other").read_bytes() == b"of the user"


def test_overwrite_removes_a_runs_own_checkpoint_that_the_manifest_does_not_list_yet(tmp_path, tiny):
    out = tmp_path / "run"
    whole(out, tiny)
    (out / "checkpoints" / "MANIFEST.json").write_text("[]")
    begin(out, tiny, overwrite=True)
    assert list((out / "checkpoints").iterdir()) == []


def test_overwrite_keeps_a_checkpoint_of_another_run(tmp_path, tiny):
    out, other = tmp_path / "run", tmp_path / "other"
    whole(out, tiny)
    theirs = whole(other, tiny, steps=5).checkpoints / "step_00000005.pt"
    shutil.copy(theirs, out / "checkpoints")
    begin(out, tiny, overwrite=True)
    assert (out / "checkpoints" / "step_00000005.pt.other").read_bytes() == theirs.read_bytes()


def test_if_a_file_cannot_be_renamed_those_of_the_user_keep_their_names(tmp_path, tiny, monkeypatch):
    out = tmp_path / "run"
    whole(out, tiny)
    (out / "scores.json").write_bytes(b"of the user")
    before = contents(out)

    def failing(old, new):
        if Path(old).name == "metrics.jsonl":
            raise PermissionError(1, "not permitted", str(old))
        return rename(old, new)

    rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(overwrite_run.os, "rename", failing)
        with pytest.raises(RunError, match="Nothing has changed"):
            begin(out, tiny, overwrite=True)
    assert contents(out) == before
