"""Hostile tar files: nothing is extracted, nothing outside is read, and memory and time stay bounded."""

import io
import os
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from moco.data.decode.decode import BadImage
from moco.data.shards.shards import Shards
from moco.data.sources.images import DataError
from tests.data.shards.sample_tars import png

KINDS = {
    "symbolic link": (tarfile.SYMTYPE, "../../secret.png"),
    "hard link": (tarfile.LNKTYPE, "../secret.png"),
    "absolute link": (tarfile.SYMTYPE, "/etc/hostname"),
    "character device": (tarfile.CHRTYPE, ""),
    "block device": (tarfile.BLKTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
    "directory": (tarfile.DIRTYPE, ""),
    "contiguous file": (tarfile.CONTTYPE, ""),
    "unknown type": (b"Z", ""),
}
NAMES = [
    "../../outside.png", "/etc/outside.png", "a/../../outside.png", "..\\outside.png", "C:/outside.png",
    "~/outside.png", "-rf.png", "a\nb.png", "\x1b[31mred.png", "a" * 90 + ".png", "\u202egnp.png", "con.png", ".png",
    "....png", " .png", "$(touch outside).png", "=cmd().png", "<script>.png",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".moco-index" not in path.parts}


def archive_of(path: Path, infos: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in infos:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_no_plain_file_is_left_out(tmp_path, kind):
    (tmp_path / "secret.png").write_bytes(png(9))
    path = archive_of(tmp_path / "in" / "s.tar", [(info("a.png", *KINDS[kind]), b""), (info("b.png"), png(1))])
    before = files_in(tmp_path)
    shards = Shards([path])
    assert [name for name in shards.names if name.endswith("b.png")] == ["s/b.png"]
    for index in range(len(shards)):
        with suppress(ValueError):
            assert shards.read_bytes(index) in (b"", png(1))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_archive(tmp_path, name):
    path = archive_of(tmp_path / "in" / "s.tar", [(info(name), png(1)), (info("b.png"), png(2))])
    before = files_in(tmp_path)
    shards = Shards([path])
    assert shards.read_bytes(len(shards) - 1) == png(2)
    assert shards.read(0).shape == (12, 12, 3)
    assert files_in(tmp_path) == before


def header_with(field: slice, value: bytes) -> bytes:
    """A tar file whose first header has `value` in a field, with a right checksum."""
    made = tarfile.TarInfo("a.png")
    made.size = len(png(1))
    block = bytearray(made.tobuf(tarfile.GNU_FORMAT))
    block[field] = value.ljust(field.stop - field.start, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


SIZES = {
    "8 GiB": b"77777777777\0",
    "2**63": b"\x80\0\0\0\x7f" + b"\xff" * 7,
    "2**88": b"\x80" + b"\xff" * 11,
    "negative": b"\xff" * 12,
    "minus": b"-1\0",
    "no number": b"zzz\0",
    "zero": b"0\0",
}


@pytest.mark.parametrize("size", list(SIZES))
def test_sizes_that_cannot_be_right_are_no_images(tmp_path, size):
    path = tmp_path / "in" / "s.tar"
    path.parent.mkdir()
    body = png(1) + bytes(-len(png(1)) % 512)
    good = tarfile.TarInfo("b.png")
    good.size = len(png(2))
    path.write_bytes(
        header_with(slice(124, 136), SIZES[size])
        + body
        + good.tobuf()
        + png(2)
        + bytes(-len(png(2)) % 512)
        + bytes(1024)
    )
    tracemalloc.start()
    try:
        shards = Shards([path])
        for index in range(len(shards)):
            with suppress(BadImage):
                shards.read(index)
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**26


@pytest.mark.timeout(60)
def test_a_hole_of_a_terabyte_takes_no_memory_and_no_time(tmp_path):
    path = archive_of(tmp_path / "in" / "s.tar", [(info("a.png"), png(1))])
    os.truncate(path, 2**40)
    assert len(Shards([path])) == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_ends_a_process_and_gives_no_wrong_image(tmp_path, seed):
    """Each image of a damaged file is its own, or another file's in the archive, or a bad one."""
    rng = np.random.default_rng(seed)
    path = archive_of(tmp_path / "in" / "s.tar", [(info(f"{i}.png"), png(i, side=20)) for i in range(8)])
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        place, length = int(rng.integers(len(content))), int(rng.integers(1, 700))
        content[place : place + length] = rng.bytes(length) if rng.random() < 0.5 else b""
    path.write_bytes(bytes(content))
    try:
        shards = Shards([path])
    except DataError:
        return
    for index in range(len(shards)):
        try:
            assert shards.read(index).dtype == np.uint8
        except BadImage:
            continue
