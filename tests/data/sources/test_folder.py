"""Finding images: in any folder or list, with any names, with labels where there are any."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moco.data.sources.folder import BadImage, DataError, Folder, find_images
from moco.data.sources.images import Subset
from moco.data.sources.skipped import Skipped, describe_skipped, skipped_files

PNG = b""  # made once, below


@pytest.fixture(scope="module", autouse=True)
def _one_png(tmp_path_factory):
    global PNG
    path = tmp_path_factory.mktemp("png") / "x.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    PNG = path.read_bytes()


def tree(root: Path, *names: str) -> Path:
    """A PNG file at each of `names` below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    return root


def names_in(*sources: Path) -> list[str]:
    return list(find_images(sources).names)


# --- folders --------------------------------------------------------------------------------------------------------


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


def test_what_is_skipped_is_counted_by_reason_and_named(tmp_path):
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


def test_what_was_skipped_is_told_of_some_of_the_images_too(tmp_path):
    found = find_images(tree(tmp_path, "a.png", "b.png", "c.heic", "d.heic", "e.txt"))
    for images in (found, Subset(Subset(found, [0, 1]), [0])):
        assert skipped_files(images) == {".heic file": 2, ".txt file": 1}
        assert describe_skipped(images) == (
            "2 x .heic file, 1 x .txt file (convert HEIC to JPEG or PNG, with pillow-heif or heif-convert)"
        )


def test_of_images_that_are_not_from_folders_nothing_was_skipped(tmp_path):
    (tree(tmp_path, "a.png") / "l.txt").write_text("a.png\n")
    assert skipped_files(find_images(tmp_path / "l.txt")) == {}
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
    assert skipped_files(found) == {"hidden" if name.startswith(".") else "system folder": 2}


@pytest.mark.parametrize("link", ["a-link", "z-link"])
def test_of_a_folder_and_a_link_to_it_the_folder_is_the_class(tmp_path, link: str):
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
            file.write(PNG)
    except OSError:
        pytest.skip("this file system refuses the name")
    found = find_images(tmp_path)
    assert [os.fsencode(one) for one in found.names] == [name]
    assert found.read(0).shape == (2, 3, 3)


def test_a_bad_image_goes_by_its_name_in_the_folder(tmp_path):
    (tree(tmp_path, "a/x.png", "b/y.png") / "b" / "y.png").write_bytes(b"nothing")
    with pytest.raises(BadImage) as caught:
        find_images(tmp_path).read(1)
    assert caught.value.name == "b/y.png"


def test_a_file_that_has_gone_is_a_bad_image(tmp_path):
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


# --- several sources ------------------------------------------------------------------------------------------------


def test_several_roots_come_one_after_the_other_under_their_names(tmp_path):
    found = find_images([tree(tmp_path / "b", "x.png"), tree(tmp_path / "a", "y.png", "x.png")])
    assert list(found.names) == ["b/x.png", "a/x.png", "a/y.png"]
    assert found.path(1) == str(tmp_path / "a" / "x.png")
    assert found.read(2).shape == (2, 3, 3)


def test_roots_of_one_name_are_told_apart(tmp_path):
    one, other = tree(tmp_path / "1" / "images", "x.png"), tree(tmp_path / "2" / "images", "x.png")
    found = find_images([one, other])
    assert list(found.names) == ["images/x.png", "images~2/x.png"]
    assert found.path(1) == str(other / "x.png")


def test_labels_of_several_roots_are_joined_by_name(tmp_path):
    one, other = tree(tmp_path / "1", "cat/a.png", "dog/b.png"), tree(tmp_path / "2", "ant/c.png", "dog/d.png")
    found = find_images([one, other])
    assert list(found.classes) == ["ant", "cat", "dog"]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2, 0, 2]


def test_one_root_without_labels_means_no_labels(tmp_path):
    assert find_images([tree(tmp_path / "1", "cat/a.png", "dog/b.png"), tree(tmp_path / "2", "c.png")]).labels is None


def test_a_path_alone_is_a_source_as_well(tmp_path):
    tree(tmp_path, "a.png")
    assert list(find_images(str(tmp_path)).names) == list(find_images(tmp_path).names) == ["a.png"]


def test_a_relative_source_is_still_found_from_elsewhere(tmp_path, monkeypatch):
    tree(tmp_path / "data", "a.png")
    monkeypatch.chdir(tmp_path)
    found = find_images("data")
    monkeypatch.chdir("/")
    assert found.read(0).shape == (2, 3, 3)


# --- lists ----------------------------------------------------------------------------------------------------------


def listed(folder: Path, name: str, text: str) -> Folder:
    (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return find_images(folder / name)


@pytest.mark.parametrize("name", ["list.txt", "list.lst", "list.tsv", "list.csv", "LIST.TXT"])
def test_a_list_keeps_its_order_and_its_paths_are_from_its_folder(tmp_path, name: str):
    tree(tmp_path, "sub/b.png", "a.png")
    found = listed(tmp_path, name, "sub/b.png\n\na.png\n")
    assert list(found.names) == ["sub/b.png", "a.png"]
    assert found.labels is None
    assert found.path(0) == str(tmp_path / "sub" / "b.png")


@pytest.mark.parametrize(
    ("name", "between"), [("l.txt", "\t"), ("l.tsv", "\t"), ("l.csv", ","), ("l.txt", ","), ("l.lst", ",")]
)
def test_a_second_column_is_the_label(tmp_path, name: str, between: str):
    tree(tmp_path, "a.png", "b.png", "c.png")
    found = listed(tmp_path, name, "".join(f"{path}{between}{label}\n" for path, label in zip(
        ["a.png", "b.png", "c.png"], ["dog", "ant", "dog"], strict=True)))  # fmt: skip
    assert list(found.classes) == ["ant", "dog"]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]


def test_absolute_paths_in_a_list_are_taken_as_they_are(tmp_path):
    image = tree(tmp_path / "far", "a.png") / "a.png"
    (tmp_path / "near").mkdir()
    found = listed(tmp_path / "near", "l.txt", f"{image}\n")
    assert found.path(0) == str(image)
    assert found.read(0).shape == (2, 3, 3)


def test_commas_and_spaces_belong_to_the_names_of_a_text_list(tmp_path):
    names = ["a,b.png", "c d.png", "1.5,2.png"]
    tree(tmp_path, *names)
    assert list(listed(tmp_path, "l.txt", "\n".join(names)).names) == names


def test_quotes_and_headings_of_a_csv_list_are_understood(tmp_path):
    tree(tmp_path, "a,b.png", "two\nlines.png")
    found = listed(tmp_path, "l.csv", 'path,label\n"a,b.png",cat\n"two\nlines.png","dog"\n')
    assert list(found.names) == ["a,b.png", "two\nlines.png"]
    assert list(found.classes) == ["cat", "dog"]


def test_a_list_made_on_windows_is_understood(tmp_path):
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    assert names_in(tmp_path / "l.txt") == ["a.png", "b.png"]


def test_names_in_a_list_need_not_be_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        tree(tmp_path, name)
    except OSError:
        pytest.skip("this file system refuses the name")
    assert listed(tmp_path, "l.txt", name + "\n").read(0).shape == (2, 3, 3)


def test_a_list_may_name_files_with_any_ending(tmp_path):
    assert listed(tree(tmp_path, "image-0001"), "l.txt", "image-0001\n").read(0).shape == (2, 3, 3)


def test_a_list_and_a_folder_go_together(tmp_path):
    tree(tmp_path / "one", "a.png")
    tree(tmp_path / "two", "b.png")
    (tmp_path / "more.txt").write_text(f"one/a.png\n{tmp_path / 'one' / 'a.png'}\n")
    found = find_images([tmp_path / "two", tmp_path / "more.txt"])
    assert list(found.names) == ["two/b.png", "more/one/a.png", f"more/{tmp_path}/one/a.png"]
    assert [found.path(i) for i in (1, 2)] == [str(tmp_path / "one" / "a.png")] * 2


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_missing_source_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nothing-here does not exist"):
        find_images(tmp_path / "nothing-here")


def test_no_source_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        find_images([])


def test_an_empty_folder_is_an_error_that_says_what_was_found(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.heic").touch()
    with pytest.raises(DataError, match=r"found 12 x \.heic file \(convert .*\)\. .*\.jpg \.jpeg \.png"):
        find_images(tmp_path)


def test_a_folder_with_nothing_in_it_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no files at all"):
        find_images(tmp_path)


def test_one_empty_folder_among_several_is_an_error_about_that_one(tmp_path):
    tree(tmp_path / "full", "a.png")
    (tmp_path / "full" / "x.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: found no files at all"):
        find_images([tmp_path / "full", tmp_path / "empty"])


def test_an_image_as_a_source_is_an_error_that_asks_for_its_folder(tmp_path):
    with pytest.raises(DataError, match="give the folder"):
        find_images(tree(tmp_path, "a.png") / "a.png")


@pytest.mark.parametrize("pair", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "link"), ("a", "a/list.txt")])
def test_sources_that_overlap_are_an_error(tmp_path, pair: tuple[str, str]):
    tree(tmp_path, "a/1.png", "a/b/2.png", "ab/3.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "list.txt").write_text("1.png\n")
    with pytest.raises(DataError, match="count twice"):
        find_images([tmp_path / one for one in (pair[0], "ab", pair[1])])


def test_missing_files_of_a_list_are_an_error_that_names_three(tmp_path):
    tree(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"4 of 5 files .* missing: 1\.png, 2\.png, 3\.png, \.\.\."):
        listed(tmp_path, "l.txt", "a.png\n1.png\n2.png\n3.png\n4.png\n")


def test_a_directory_in_a_list_is_missing_as_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="1 of 1 files"):
        listed(tmp_path, "l.txt", "a\n")


def test_an_empty_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match="lists no images"):
        listed(tmp_path, "l.txt", "\n\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "a.png,cat,3\n"),
        ("l.tsv", "a.png\tcat\t3\n"),
        ("l.csv", "a.png,cat\nb.png\n"),
        ("l.txt", "a.png,cat\nb.png\n"),
        ("l.csv", "a.png,cat\nb.png,\n"),
        ("l.csv", 'a.png,"cat\n'),
    ],
)
def test_labels_for_some_images_or_too_many_columns_are_an_error(tmp_path, name: str, text: str):
    tree(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match=r"line \d|cannot be read"):
        listed(tmp_path, name, text)
