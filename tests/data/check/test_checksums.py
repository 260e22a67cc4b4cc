"""Lists of SHA-256 are sha256sum's, and what differs is said."""

import hashlib
import shutil
import subprocess

import pytest

from moco.data.check.checksums import digest_changes, read_digests, write_digests
from moco.data.sources.images import DataError

NAMES = ["a.png", "b c.png", "two\nlines.png", "back\\slash.png", "both\\n\n.png", "\udcff.png", " .png", "x\r.png"]
DIGESTS = {name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in NAMES}


def test_a_list_is_read_as_it_was_written(tmp_path):
    write_digests(DIGESTS, tmp_path / "list")
    assert read_digests(tmp_path / "list") == DIGESTS


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_reads_our_lists_and_we_read_its(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    write_digests(DIGESTS, tmp_path / "ours")
    assert subprocess.run(["sha256sum", "--check", "--strict", "ours"], cwd=tmp_path).returncode == 0
    theirs = subprocess.run(["sha256sum", "--", *NAMES], cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / "theirs").write_bytes(theirs)
    assert read_digests(tmp_path / "theirs") == DIGESTS


@pytest.mark.parametrize("text", ["nothing", "ab  x.png", f"{'g' * 64}  x.png", f"{'0' * 64} x.png"])
def test_an_invalid_list_of_checksums_is_refused_with_the_number_of_the_line(tmp_path, text: str):
    (tmp_path / "list").write_text(f"{'0' * 64}  a.png\n{text}\n")
    with pytest.raises(DataError, match="line 2"):
        read_digests(tmp_path / "list")


def test_changed_digests_are_reported():
    before = {"same": b"0", "other": b"1", "gone": b"2"}
    after = {"same": b"0", "other": b"9", "new": b"3"}
    assert digest_changes(before, after) == ["1 changed: other", "1 are gone: gone", "1 are new: new"]
    assert digest_changes(before, before) == []
