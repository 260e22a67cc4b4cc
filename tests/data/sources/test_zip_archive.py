"""Zip files: the same images as their folder, damage is found by checksum, and hostile ones lead nowhere."""

import io
import os
import pickle
import stat
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures

from moco.data.decode.decode import BadImage
from moco.data.shards.pack import pack
from moco.data.sources.background_scan import BackgroundScan
from moco.data.sources.content_sample import content_sample
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError
from moco.data.sources.manifest import manifest_of
from moco.data.sources.open import list_image_files, open_folder, open_images
from moco.data.sources.skipped import count_skipped_files
from moco.data.sources.zip_archive import ZipImages
from tests.data.loader.loading import loader, same
from tests.data.shards.sample_tars import png

DATE = (2001, 9, 9, 1, 46, 40)  # 10**9 seconds after 1970 began


def write_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, DATE)
            archive.writestr(info, content, method)
    return path


def zip_of(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED, *, below: str = "") -> Path:
    """A zip file of the files of a folder, in reverse order."""
    files = sorted((file for file in folder.rglob("*") if file.is_file()), reverse=True)
    return write_zip(path, [(below + str(file.relative_to(folder)), file.read_bytes()) for file in files], method)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 30, classes=3)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("below", ["", "photos/", "a/b/"])
def test_a_zip_file_has_the_images_of_its_folder(folder: Path, tmp_path: Path, method: int, below: str):
    images, expected = open_images(zip_of(folder, tmp_path / "p.zip", method, below=below)), find_images(folder)
    assert list(images.names) == list(expected.names)
    assert np.array_equal(images.labels, expected.labels)
    assert list(images.classes) == list(expected.classes)
    assert np.array_equal(images.sizes, expected.sizes)
    assert set(images.mtimes.tolist()) == {10**18}
    assert all(np.array_equal(images.read(i), expected.read(i)) for i in range(30))


def test_the_mini_batches_are_those_of_the_folder_in_threads_and_processes(folder: Path, tmp_path: Path):
    images, expected = ZipImages([zip_of(folder, tmp_path / "p.zip")]), list(loader(find_images(folder)))
    assert same(list(loader(images, workers=2)), expected)
    assert same(list(loader(images, workers=2, processes=True)), expected)
    assert same(list(loader(pickle.loads(pickle.dumps(images)), steps=range(3, 6))), expected[3:])
    assert torch.equal(next(iter(loader(open_images(BackgroundScan([str(tmp_path / "p.zip")]))))).ids, expected[0].ids)


def test_a_run_that_was_started_on_the_folder_may_resume_on_the_zip_file(folder: Path, tmp_path: Path):
    """Names and sizes are the same, and so is the sample of the contents, which then counts and not the times."""
    images, expected = ZipImages([zip_of(folder, tmp_path / "p.zip")]), find_images(folder)
    assert content_sample(images) == content_sample(expected)
    assert list(manifest_of(images).names) == list(manifest_of(expected).names)
    (folder / "class0" / "0000.png").write_bytes(png(1))
    assert content_sample(find_images(folder)) != content_sample(images)


def test_shards_that_are_packed_from_a_zip_file_have_its_files(folder: Path, tmp_path: Path):
    images = open_images(zip_of(folder, tmp_path / "p.zip"))
    pack(images, tmp_path / "shards")
    shards = open_images(tmp_path / "shards")
    assert list(shards.names) == list(images.names)
    assert all(shards.read_bytes(i) == images.read_bytes(i) for i in range(30))


def test_several_zip_files_have_the_names_of_several_folders(tmp_path: Path):
    first, second = make_pictures(tmp_path / "one", 3), make_pictures(tmp_path / "two", 2, seed=1)
    archives = [zip_of(first, tmp_path / "zips" / "one.zip"), zip_of(second, tmp_path / "zips" / "two.zip")]
    images, expected = open_images(archives), find_images([first, second])
    assert list(images.names) == list(expected.names)
    assert np.array_equal(images.read(4), expected.read(4))
    assert list_image_files(images) == [str(path) for path in archives]


def test_what_is_no_image_is_counted(tmp_path: Path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    names = ["notes.txt", "__MACOSX/._a.png", ".hidden.png", "README", "empty.png"]
    members = [(name, b"" if name == "empty.png" else b"x") for name in names] + [(link, b"/etc/passwd")]
    images = ZipImages([write_zip(tmp_path / "p.zip", [*members, ("a.png", png(1)), ("dir/", b"")])])
    assert list(images.names) == ["a.png"]
    assert count_skipped_files(images) == {
        ".txt file": 1, "system folder": 1, "hidden": 1, "file without an ending": 1, "empty, or too large": 1,
        "not a regular file": 1,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_files_with_the_same_name_the_last_counts(tmp_path: Path):
    images = ZipImages([write_zip(tmp_path / "p.zip", [("a.png", png(1)), ("b.png", png(2)), ("a.png", png(3))])])
    assert [images.read_bytes(i) for i in range(2)] == [png(3), png(2)]
    assert count_skipped_files(images) == {"older file of the same name": 1}


OUTSIDE = [
    "../../out.png",
    "/etc/out.png",
    "a/../../out.png",
    "..\\out.png",
    "C:/out.png",
    "c:\\out.png",
    "\\\\x\\o.png",
]
STRANGE = [
    "~/out.png",
    "-rf.png",
    "a\nb.png",
    "\x1b[31mred.png",
    "a" * 900 + ".png",
    "\u202egnp.png",
    " .png",
    "=x().png",
]


@pytest.mark.parametrize("name", OUTSIDE + STRANGE)
def test_no_name_leads_out_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    path = write_zip(tmp_path / "in" / "p.zip", [(name, png(1)), ("z/b.png", png(2))])
    images = ZipImages([path])
    assert [images.read(i).shape for i in range(len(images))] == [(12, 12, 3)] * (1 if name in OUTSIDE else 2)
    assert list(count_skipped_files(images)) == (["path that leads out of the zip file"] if name in OUTSIDE else [])
    assert [str(file) for file in tmp_path.rglob("*") if file.is_file()] == [str(path)]


def test_files_of_windows_have_their_folders(tmp_path: Path):
    images = ZipImages([write_zip(tmp_path / "p.zip", [("cats\\a.png", png(1)), ("dogs\\b.png", png(2))])])
    assert list(images.names) == ["cats/a.png", "dogs/b.png"]
    assert list(images.classes) == ["cats", "dogs"]


def changed(tmp_path: Path, old: bytes, new: bytes) -> Path:
    """A zip file of a.png and b.png in which some bytes of a.png are replaced."""
    path = write_zip(tmp_path / "p.zip", [("a.png", png(1, 40)), ("b.png", png(2, 40))], zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def record(field: slice, value: bytes) -> tuple[bytes, bytes]:
    """The entry of a.png in the list at the end, and the same with another value in a field."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.png", DATE), png(1, 40), zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    old = bytearray(content[content.rindex(b"PK\x01\x02") :][:46])
    new = bytearray(old)
    new[field] = value
    return bytes(old[4:28]), bytes(new[4:28])


FIELDS = {  # of the list: the checksum, the packed size, the size, and the place of the header
    "another checksum": (slice(16, 20), b"\1\2\3\4", "checksum"),
    "a smaller size": (slice(24, 28), b"\x10\0\0\0", "checksum"),
    "a larger size": (slice(24, 28), b"\0\0\1\0", "checksum"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_entry_makes_the_image_bad_and_no_other(tmp_path: Path, name: str):
    field, value, reason = FIELDS[name]
    images = ZipImages([changed(tmp_path, *record(field, value))])
    with pytest.raises(BadImage, match=reason) as error:
        images.read(0)
    assert error.value.name == "a.png"
    assert images.read(1).shape == (40, 40, 3)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (slice(8, 10), b"\1\0", "encrypted"), (slice(10, 12), b"\x09\0", "compressed by another method than deflate"),
        (slice(20, 24), b"\xf0\xff\xff\x7f", "beyond the end of the zip file"),
        (slice(24, 28), b"\xff\xff\xff\xf0", "empty, or too large"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted_with_the_reason(tmp_path: Path, field: slice, value: bytes, reason: str):
    images = ZipImages([changed(tmp_path, *record(field, value))])
    assert list(images.names) == ["b.png"]
    assert count_skipped_files(images) == {reason: 1}
    assert images.read(0).shape == (40, 40, 3)


def test_damaged_content_is_a_bad_image_and_the_others_are_whole(tmp_path: Path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "p.zip", [(f"{i}.png", png(i, 40)) for i in range(3)], method)
        content, place = bytearray(path.read_bytes()), len(png(0, 40)) + 600
        content[place : place + 300] = bytes(300)
        path.write_bytes(content)
        images = ZipImages([path])
        with pytest.raises(BadImage, match="damaged in the zip file"):
            images.read(1)
        assert [images.read_bytes(i) for i in (0, 2)] == [png(0, 40), png(2, 40)]


def test_a_header_that_is_overwritten_is_a_bad_image(tmp_path: Path):
    images = ZipImages([changed(tmp_path, b"PK\x03\x04", b"XX\x03\x04")])
    with pytest.raises(BadImage, match="its header is not where"):
        images.read(0)


def test_a_bomb_takes_no_more_memory_than_it_says(tmp_path: Path):
    """100 MB of zeros in 100 kB, which the list calls 1,000 bytes."""
    zeros = bytes(100_000_000)
    path = write_zip(tmp_path / "p.zip", [("a.png", zeros), ("b.png", png(1))], zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert len(content) < 200_000
    size = len(zeros).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    del zeros, content
    images = ZipImages([path])
    tracemalloc.start()
    with pytest.raises(BadImage, match="checksum"):
        images.read(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_zip_file_that_is_cut_short_is_refused(folder: Path, tmp_path: Path, kept: float):
    path = zip_of(folder, tmp_path / "p.zip")
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(DataError, match="cannot be read as a zip file"):
        open_images(path)


def test_a_zip_file_that_is_cut_short_later_gives_bad_images(folder: Path, tmp_path: Path):
    images = ZipImages([zip_of(folder, tmp_path / "p.zip")])
    os.truncate(tmp_path / "p.zip", 100)
    with pytest.raises(BadImage, match=r"the zip file ends within it|its header is not where"):
        images.read(0)


def test_random_damage_only_makes_images_bad(folder: Path, tmp_path: Path):
    content, rng = zip_of(folder, tmp_path / "p.zip").read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        spoiled = bytearray(content)
        for place in rng.integers(len(content) - 3000, len(content), 3):  # in the list at the end
            spoiled[place] = rng.integers(256)
        (tmp_path / "x.zip").write_bytes(spoiled)
        with suppress(DataError):
            images = ZipImages([tmp_path / "x.zip"])
            for index in range(len(images)):
                with suppress(BadImage):
                    images.read(index)


def test_a_zip_file_without_images_says_what_is_in_it(tmp_path: Path):
    with pytest.raises(DataError, match=r"no images in .*p\.zip.*: found 1 x \.txt file"):
        open_images(write_zip(tmp_path / "p.zip", [("a.txt", b"x")]))
    with pytest.raises(DataError, match="found no files at all"):
        open_images(write_zip(tmp_path / "q.zip", []))


def test_zip_files_and_folders_are_not_mixed(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"expected only sources of one kind: .*photos is no zip file"):
        open_images([zip_of(folder, tmp_path / "p.zip"), folder])


def test_a_command_that_needs_files_says_to_unpack(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="unpack them into a folder first"):
        open_folder(zip_of(folder, tmp_path / "p.zip"))


def test_an_entry_that_unpacks_to_far_more_than_an_image_does_is_skipped(tmp_path: Path):
    path = write_zip(tmp_path / "p.zip", [("a.png", png(1)), ("b.png", png(2))])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.png", "w") as bomb:
        for _ in range(257):
            bomb.write(bytes(2**20))
    images = open_images(path)
    assert list(images.names) == ["a.png", "b.png"]
    assert count_skipped_files(images) == {"much larger unpacked than a packed image is": 1}
