"""Files get the modes that the user's umask asks for, and only our own leftovers are removed."""

import errno
import fcntl
import os

import pytest

from moco.atlas.make_atlas import atlas_page_path as atlas_of
from moco.atomic_output import make_staging_folder, refuse_existing
from moco.data.check.checksums import check_list_replaceable
from moco.files import append, remove_temporary_files, temporary_name, write_text
from moco.text import message_of
from moco.train import lock_folder
from moco.train.report_run import report_page_path
from moco.train.run_folder import RunError
from moco.weights.export_paths import check_new_folder


@pytest.fixture
def umask():
    """Sets the umask; the former one comes back."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_modes_that_the_umask_leaves(tmp_path, umask, mask, mode):
    umask(mask)
    write_text(tmp_path / "whole", "x")
    append(tmp_path / "log", b"x")
    with lock_folder.lock_folder(tmp_path):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"whole": mode, "log": mode, ".lock": mode}


def test_only_files_under_our_temporary_names_are_swept(tmp_path):
    theirs = {
        ".tmp-x", ".tmp-12", ".tmp-notes.txt", ".tmp-²-ab", ".tmp-1-ab", ".tmp-01-0a1b2c3d", ".tmp-12-0a1b2c3g",
        ".tmp-12-0a1b2c3d4", ".tmp-12-0a1b2c3d.txt", ".tmp-12-0a1b2c3d", ".tmp-12-0a1b2c3d4e5f6a7b",
    }  # fmt: skip
    ours, folder = (temporary_name(tmp_path / "file") for _ in range(2))
    for name in (ours.name, ours.name.upper(), f"{ours.name}.txt", f"{ours.name[:-1]}z", *theirs):
        (tmp_path / name).write_bytes(b"")
    theirs |= {ours.name.upper(), f"{ours.name}.txt", f"{ours.name[:-1]}z"}
    folder.mkdir()
    remove_temporary_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == theirs | {folder.name}


def test_a_lock_that_can_only_be_read_locks_too(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    opened = os.open

    def readable_only(path, flags, *mode):
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(lock_folder.os, "open", readable_only)
    with (
        lock_folder.lock_folder(tmp_path),
        pytest.raises(RunError, match="another process"),
        lock_folder.lock_folder(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_named_and_not_taken_for_another_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="cannot be locked"), lock_folder.lock_folder(tmp_path):
        pass


def test_appending_to_a_file_with_two_names_leaves_the_other_one_as_it_was(tmp_path):
    log, backup = tmp_path / "train.log", tmp_path / "backup.log"
    log.write_bytes(b"one\n")
    os.link(log, backup)
    append(log, b"two\n")
    append(log, b"three\n")
    assert log.read_bytes() == b"one\ntwo\nthree\n"
    assert backup.read_bytes() == b"one\n"


def let_fail(call, monkeypatch):
    """Let a call of the system fail with its own name for the file, as a folder that cannot be written to does."""

    def refused(name, *_arguments, **_more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))

    monkeypatch.setattr(os, call, refused)


@pytest.mark.parametrize("call", ["open", "replace"])
def test_an_error_names_the_users_file_and_not_the_temporary_one(tmp_path, monkeypatch, call):
    file = tmp_path / "report.html"
    let_fail(call, monkeypatch)
    with pytest.raises(PermissionError) as caught:
        write_text(file, "x")
    assert message_of(caught.value).startswith(f"{file}: Permission denied")


def test_an_error_while_a_staging_folder_is_made_names_the_users_file(tmp_path, monkeypatch):
    file = tmp_path / "features.npy"
    let_fail("mkdir", monkeypatch)
    with pytest.raises(PermissionError) as caught, make_staging_folder(file):
        pass
    assert message_of(caught.value).startswith(f"{file}: Permission denied")


@pytest.mark.parametrize(
    "check",
    [
        lambda folder: refuse_existing([folder / "features.npy"], overwrite=False),
        lambda folder: check_new_folder(folder / "imported"),
        lambda folder: report_page_path([folder], folder / "report.html"),
        lambda folder: atlas_of(folder, folder / "atlas.html"),
        lambda folder: check_list_replaceable(folder / "sums.txt"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch, check):
    check(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 or str(path) != str(tmp_path))
    with pytest.raises(PermissionError, match="Permission denied"):
        check(tmp_path)
