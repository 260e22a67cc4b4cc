"""moco check at the command line: what it prints, where, and with which exit code."""

import json

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
