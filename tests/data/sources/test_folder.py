"""Images in a folder: their order, names and labels, and what is skipped."""

import os
import shutil
import sys
import time

import numpy as np
import pytest

from moco.data.sources.folder import BadImage, find_images
from moco.data.sources.images import Subset
from moco.data.sources.skipped import Skipped, count_skipped_files, describe_skipped
from tests.data.sources.trees import names_in, png, tree


def test_a_flat_folder_is_read_in_order_and_has_no_labels(tmp_path):
    found = find_images(tree(tmp_path, "b.png", "a.png", "C.png"))
    assert list(found.names) == ["C.png", "a.png", "b.png"]
    assert found.labels is None
    assert list(found.classes) == []
    assert len(found) == 3


def test_an_image_is_read_and_has_a_path_a_size_and_a_time(tmp_path):
    found = find_images(tree(tmp_path, "a/x.png", "b/y.png"))
    assert found.read(1).tolist() == [[[1, 2, 3]] * 3] * 2
    assert found.path(1) == str(tmp_path / "b" / "y.png")
    status = (tmp_path / "b" / "y.png").stat()
    assert (found.sizes[1], found.mtimes[1]) == (status.st_size, status.st_mtime_ns)


def test_paths_are_sorted_by_their_bytes(tmp_path):
    names = ["a/z.png", "a.png", "a0/x.png", "é.png", "z.png", "Z.png", "\U0001f600.png", "\uff5e.png", "B/x.png"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"\xff.png"))  # after all others by its byte, not by what Python makes of it
    assert [os.fsencode(name) for name in names_in(tree(tmp_path, *names))] == sorted(map(os.fsencode, names))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_does_not_depend_on_that_of_the_directory(tmp_path, monkeypatch, seed: int):
    tree(tmp_path, *(f"{i % 3}/{i}.png" for i in range(30)))
    expected, scandir = names_in(tmp_path), os.scandir

    class Shuffled:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)
            np.random.default_rng(seed).shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert names_in(tmp_path) == expected


def test_directories_below_the_root_are_labels(tmp_path):
    found = find_images(tree(tmp_path, "dog/1.png", "cat/2.png", "dog/puppy/3.png", "cat/4.png"))
    assert list(found.names) == ["cat/2.png", "cat/4.png", "dog/1.png", "dog/puppy/3.png"]
    assert list(found.classes) == ["cat", "dog"]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_one_image_outside_of_a_class_means_no_labels(tmp_path):
    assert find_images(tree(tmp_path, "dog/1.png", "cat/2.png", "3.png")).labels is None


def test_one_class_alone_is_no_label(tmp_path):
    assert find_images(tree(tmp_path, "all/1.png", "all/2.png")).labels is None


def test_classes_without_images_do_not_count(tmp_path):
    tree(tmp_path, "dog/1.png", "cat/2.png")
    (tmp_path / "ant").mkdir()
    assert list(find_images(tmp_path).classes) == ["cat", "dog"]


KNOWN = [
    "a.jpg", "a.JPG", "a.Jpeg", "a.jfif", "a.JPE", "a.png", "a.webp", "a.bmp", "a.tif", "a.TIFF", "a.gif", "a.avif",
    "a.ppm", "a.PGM", "a.pbm", "a.pnm",
]  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_endings_in_any_case_are_images(tmp_path, name: str):
    assert names_in(tree(tmp_path, name)) == [name]


def test_skipped_files_are_counted_by_reason_and_named(tmp_path):
    tree(tmp_path, "a.png", ".hidden.png", ".git/x.png", "__MACOSX/a.png", "notes.txt", "b.HEIC", "c.heic", "README")
    skipped = find_images(tmp_path).skipped
    assert skipped.counts == {
        "hidden": 2,
        "system folder": 1,
        ".txt file": 1,
        ".heic file": 2,
        "file without an ending": 1,
    }
    assert skipped.names["b.HEIC"] == ".heic file"
    assert "2 x .heic file" in str(skipped)


def test_a_subset_reports_what_its_folder_skipped(tmp_path):
    found = find_images(tree(tmp_path, "a.png", "b.png", "c.heic", "d.heic", "e.txt"))
    for images in (found, Subset(Subset(found, [0, 1]), [0])):
        assert count_skipped_files(images) == {".heic file": 2, ".txt file": 1}
        assert describe_skipped(images) == (
            "2 x .heic file, 1 x .txt file (convert HEIC to JPEG or PNG, with pillow-heif or heif-convert)"
        )


def test_images_that_are_not_from_folders_report_nothing_skipped(tmp_path):
    (tree(tmp_path, "a.png") / "l.txt").write_text("a.png\n")
    assert count_skipped_files(find_images(tmp_path / "l.txt")) == {}
    assert describe_skipped(find_images(tmp_path / "l.txt")) == ""


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
        ".Trash-1000",
        ".Trashes",
    ],
)
def test_folders_of_the_system_are_skipped_and_make_no_class(tmp_path, name: str):
    found = find_images(tree(tmp_path, "cat/1.png", f"cat/{name}/2.png", "dog/3.png", f"{name}/4.png"))
    assert list(found.names) == ["cat/1.png", "dog/3.png"]
    assert list(found.classes) == ["cat", "dog"]
    assert count_skipped_files(found) == {"hidden" if name.startswith(".") else "system folder": 2}


@pytest.mark.parametrize("link", ["a-link", "z-link"])
def test_a_folder_that_is_also_linked_is_one_class_by_its_own_name(tmp_path, link: str):
    tree(tmp_path, "cats/1.png", "dogs/2.png", "x/y/3.png")
    (tmp_path / link).symlink_to(tmp_path / "cats")
    (tmp_path / "cats" / link).symlink_to(tmp_path / "x" / "y")
    found = find_images(tmp_path)
    assert list(found.names) == ["cats/1.png", "dogs/2.png", "x/y/3.png"]
    assert list(found.classes) == ["cats", "dogs", "x"]
    assert found.skipped.counts == {"directory that was already entered": 2}


def test_classes_whose_names_look_the_same_are_one(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    tree(tmp_path, f"{composed}/1.png", f"{decomposed}/2.png", "tea/3.png")
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip("this file system makes one folder of the two")
    found = find_images(tmp_path)
    assert list(found.classes) == [composed, "tea"]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1]  # sorted by bytes: the decomposed one first


def test_the_names_of_what_is_skipped_are_bounded():
    skipped = Skipped()
    for i in range(5000):
        skipped.add(str(i), f".{i} file")
    assert len(skipped.names) == Skipped.LIMIT
    assert len(skipped.counts) <= Skipped.LIMIT + 1
    assert sum(skipped.counts.values()) == 5000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_fifos_and_broken_links_are_skipped_without_waiting(tmp_path):
    tree(tmp_path, "a.png")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    found = find_images(tmp_path)
    assert list(found.names) == ["a.png"]
    assert found.skipped.counts == {"not a regular file": 2, "broken link": 2}


def test_a_directory_named_like_an_image_is_a_directory(tmp_path):
    assert names_in(tree(tmp_path, "x.jpg/a.png", "y.jpg/b.png")) == ["x.jpg/a.png", "y.jpg/b.png"]


def test_links_to_files_and_to_directories_outside_are_followed(tmp_path):
    outside = tree(tmp_path / "outside", "x.png", "y.png")
    tree(tmp_path / "data", "a.png")
    (tmp_path / "data" / "link.png").symlink_to(outside / "x.png")
    (tmp_path / "data" / "more").symlink_to(outside)
    assert names_in(tmp_path / "data") == ["a.png", "link.png", "more/x.png", "more/y.png"]


def test_a_loop_of_links_is_entered_once(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "again").symlink_to(tmp_path / "b")
    found = find_images(tmp_path)
    assert list(found.names) == ["a/1.png", "b/2.png"]
    assert found.skipped.counts == {"directory that was already entered": 2}


def test_a_directory_that_cannot_be_read_is_skipped(tmp_path):
    tree(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("root may read everything")
        found = find_images(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert list(found.names) == ["a.png"]
    assert found.skipped.names["closed/"].startswith("directory that cannot be read")


ODD = [
    b"caf\xe9.png",
    b"two\nlines.png",
    b"x" * 251 + b".png",
    "‮gnp.png".encode(),
    b"<script>.png",
    b" .png",
    b"-rf.png",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_names_are_found_and_read(tmp_path, name: bytes):
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        with open(path, "wb") as file:
            file.write(png())
    except OSError:
        pytest.skip("this file system refuses the name")
    found = find_images(tmp_path)
    assert [os.fsencode(one) for one in found.names] == [name]
    assert found.read(0).shape == (2, 3, 3)


def test_a_bad_image_is_reported_by_its_name_in_the_folder(tmp_path):
    (tree(tmp_path, "a/x.png", "b/y.png") / "b" / "y.png").write_bytes(b"nothing")
    with pytest.raises(BadImage) as caught:
        find_images(tmp_path).read(1)
    assert caught.value.name == "b/y.png"


def test_a_removed_file_is_a_bad_image(tmp_path):
    found = find_images(tree(tmp_path, "a.png"))
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadImage, match="no such file"):
        found.read(0)


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_in_seconds(tmp_path):
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for i in range(10_000):
            os.close(os.open(tmp_path / str(label) / f"{i}.jpg", os.O_CREAT))
    start = time.process_time()
    found = find_images(tmp_path)
    seconds = time.process_time() - start
    shutil.rmtree(tmp_path)
    assert (len(found), len(found.classes)) == (100_000, 10)
    assert seconds < 5
