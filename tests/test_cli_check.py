"""moco check at the command line: what it prints, where, and with which exit code."""

import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from moco.cli import app


def moco(*arguments: object):
    """The command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_sound_images_pass_with_text_on_stdout(pictures):
    result = moco("check", pictures)
    assert result.exit_code == 0
    assert "fit for a run" in result.stdout
    assert "40 of 40 images read" in result.stderr


def test_too_many_bad_images_are_exit_code_3_and_json_is_still_one_object(pictures):
    (pictures / "bad.png").write_bytes(b"nothing")
    result = moco("check", pictures, "--max-bad", 0, "--json", "--duplicates", "--deep")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert list(facts["bad"]) == ["bad.png"]
    assert not facts["fit"]


def test_a_changed_file_gives_exit_code_3(pictures, tmp_path):
    assert moco("check", pictures, "--hash", tmp_path / "list").exit_code == 0
    assert moco("check", pictures, "--against", tmp_path / "list").exit_code == 0
    data = bytearray((pictures / "0007.png").read_bytes())
    data[-1] ^= 1  # in the checksum of the last chunk, which nobody reads
    (pictures / "0007.png").write_bytes(data)
    result = moco("check", pictures, "--against", tmp_path / "list")
    assert result.exit_code == 3
    assert "1 changed: 0007.png" in result.stdout


def test_no_images_at_all_are_exit_code_3(tmp_path):
    result = moco("check", tmp_path)
    assert result.exit_code == 3
    assert "no images" in result.stderr


def test_a_list_of_checksums_replaces_only_another_one(pictures, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    result = moco("check", pictures, "--hash", tmp_path / "photo.jpg")
    assert result.exit_code == 3
    assert "is not a list of checksums" in result.stderr
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"
    for _ in range(2):
        assert moco("check", pictures, "--hash", tmp_path / "list").exit_code == 0


def _packed(kind: str, pictures: Path, to: Path) -> Path:
    """The files of `pictures` in one file of this kind."""
    files = sorted(pictures.iterdir())
    out = to / f"packed.{kind}"
    if kind == "parquet":
        rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        pq.write_table(pa.table({"image": rows}), out)
    elif kind == "tar":
        with tarfile.open(out, "w") as archive:
            for file in files:
                archive.add(file, file.name)
    else:
        with zipfile.ZipFile(out, "w") as archive:
            for file in files:
                archive.write(file, file.name)
    return out


@pytest.mark.parametrize("kind", ["zip", "parquet", "tar"])
def test_images_inside_of_other_files_are_checked_as_those_of_a_folder(pictures, tmp_path, kind):
    (pictures / "0003.png").write_bytes((pictures / "0004.png").read_bytes())
    (pictures / "0007.png").write_bytes(b"nothing")
    one, other = (
        moco("check", path, "--max-bad", 0, "--json") for path in (pictures, _packed(kind, pictures, tmp_path))
    )
    assert (one.exit_code, other.exit_code) == (3, 3), other.output
    expected, found = json.loads(one.stdout), json.loads(other.stdout)
    for each in (expected, found):  # in a table, a name is the number of its row
        each["odd"] = {what: len(names) for what, names in each["odd"].items()}
    assert list(found.pop("bad").values()) == list(expected.pop("bad").values())
    assert len(found.pop("same_bytes")) == len(expected.pop("same_bytes")) == 1
    assert found == expected
