"""Files that appear together."""

import errno
import os
from pathlib import Path

import pytest

from moco import atomic_output as module
from moco.atomic_output import describe_leftovers, identities, open_staged_files
from moco.recipe import RecipeError


def write(folder: Path, text: str, *, overwrite: bool = True) -> None:
    with open_staged_files([folder / "a.npy", folder / "a.names.txt"], overwrite=overwrite) as files:
        for file in files:
            file.write(text.encode())


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() if path.is_file() else "a folder" for path in folder.iterdir()}


def test_files_appear_together_and_nothing_else(tmp_path: Path):
    write(tmp_path, "new", overwrite=False)
    assert contents(tmp_path) == {"a.npy": "new", "a.names.txt": "new"}


def test_a_file_created_meanwhile_is_not_replaced(tmp_path: Path):
    with (
        pytest.raises(RecipeError, match="exists"),
        open_staged_files([tmp_path / "a.npy", tmp_path / "a.names.txt"], overwrite=False),
    ):
        (tmp_path / "a.names.txt").write_text("theirs")
    assert contents(tmp_path) == {"a.names.txt": "theirs"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_exception_leaves_all_files_as_they_were(tmp_path: Path, stop: type[BaseException]):
    write(tmp_path, "old")
    files = [tmp_path / "a.npy", tmp_path / "a.names.txt"]
    before = identities(files)

    def stopped() -> None:
        with open_staged_files(files, overwrite=True) as opened:
            opened[0].write(b"half")
            raise stop

    with pytest.raises(stop):
        stopped()
    assert describe_leftovers(files, before) == f"nothing was written, and {files[0]} and {files[1]} left as before"
    assert contents(tmp_path) == {"a.npy": "old", "a.names.txt": "old"}


@pytest.mark.parametrize("calls", range(6))
def test_killed_at_any_call_the_first_file_has_its_own_beside_it(tmp_path: Path, calls: int):
    """Each change to the folder may be the last: the process dies instead."""
    write(tmp_path, "old")
    child = os.fork()
    if child == 0:
        left = [calls]

        def dying(real):
            def call(*arguments, **more):
                if left[0] == 0:
                    os._exit(1)
                left[0] -= 1
                return real(*arguments, **more)

            return call

        module.os.replace, module.Path.unlink = dying(os.replace), dying(Path.unlink)
        write(tmp_path, "new")
        os._exit(0)
    os.waitpid(child, 0)
    found = contents(tmp_path)
    if "a.npy" in found:
        assert found["a.names.txt"] == found["a.npy"]
    write(tmp_path, "again")  # takes away what was left aside
    assert contents(tmp_path) == {"a.npy": "again", "a.names.txt": "again"}


def test_two_processes_do_not_write_one_file(tmp_path: Path):
    with open_staged_files([tmp_path / "a.csv"], overwrite=False) as (file,):
        file.write(b"first")
        with (
            pytest.raises(RecipeError, match="another process is writing"),
            open_staged_files([tmp_path / "a.csv"], overwrite=False),
        ):
            pass
    assert contents(tmp_path) == {"a.csv": "first"}


def test_no_link_is_followed(tmp_path: Path):
    (tmp_path / "theirs").write_text("theirs")
    for name in ("theirs", "."):
        (tmp_path / ".a.csv.moco-partial").symlink_to(tmp_path / name)
        with (
            pytest.raises(RecipeError, match="not made by this command"),
            open_staged_files([tmp_path / "a.csv"], overwrite=True),
        ):
            pass
        (tmp_path / ".a.csv.moco-partial").unlink()
    assert contents(tmp_path) == {"theirs": "theirs"}


@pytest.mark.parametrize("mark", ["", "mine", "{}", '{"made_by": "me"}'])
def test_a_folder_of_the_user_with_a_mark_of_that_name_is_refused_and_stays(tmp_path: Path, mark: str):
    place = tmp_path / ".a.csv.moco-partial"
    (place / "new").mkdir(parents=True)
    (place / module.OWNER_MARK).write_text(mark)
    (place / "new" / "thesis.tex").write_text("theirs")
    with (
        pytest.raises(RecipeError, match="not made by this command"),
        open_staged_files([tmp_path / "a.csv"], overwrite=True),
    ):
        pass
    assert (place / "new" / "thesis.tex").read_text() == "theirs"


def test_what_is_left_by_a_kill_while_the_mark_was_written_is_taken(tmp_path: Path):
    place = tmp_path / ".a.csv.moco-partial"
    place.mkdir()
    (place / module.OWNER_MARK).touch()
    with open_staged_files([tmp_path / "a.csv"], overwrite=False) as (file,):
        file.write(b"ours")
    assert contents(tmp_path) == {"a.csv": "ours"}


@pytest.mark.parametrize("name", [".a.csv.moco-partial", ".a.csv.moco-partial/new/a.csv"])
def test_a_file_of_the_user_where_we_write_first_is_refused_and_stays(tmp_path: Path, name: str):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("theirs")
    with (
        pytest.raises(RecipeError, match="not made by this command"),
        open_staged_files([tmp_path / "a.csv"], overwrite=True),
    ):
        pass
    assert file.read_text() == "theirs"


def test_a_file_of_the_user_that_is_called_partial_stays(tmp_path: Path):
    (tmp_path / ".a.csv.partial").write_text("theirs")
    with open_staged_files([tmp_path / "a.csv"], overwrite=True) as (stream,):
        stream.write(b"ours")
    assert contents(tmp_path) == {"a.csv": "ours", ".a.csv.partial": "theirs"}


@pytest.mark.parametrize("call", ["write_text", "mkdir"])
def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path, monkeypatch, call):
    honest = getattr(Path, call)

    def full(path, *arguments, **options):
        if path.name in ("made-by-moco", "new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(path, *arguments, **options)

    monkeypatch.setattr(Path, call, full)
    with pytest.raises(OSError, match="No space left"), open_staged_files([tmp_path / "x.csv"], overwrite=False):
        pass
    assert list(tmp_path.iterdir()) == []
