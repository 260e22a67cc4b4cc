"""Folders and lists that cannot be used: the error says why."""

import os

import pytest

from moco.data.sources.folder import DataError, find_images
from moco.data.sources.open import open_images
from tests.data.sources.trees import images_of_list, tree


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


def test_a_folder_without_files_is_an_error(tmp_path):
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
    with pytest.raises(DataError, match=r"4 of 5 files .* missing: 1\.png, 2\.png, 3\.png and 1 more"):
        images_of_list(tmp_path, "l.txt", "a.png\n1.png\n2.png\n3.png\n4.png\n")


def test_a_directory_in_a_list_is_missing_as_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="1 of 1 files"):
        images_of_list(tmp_path, "l.txt", "a\n")


def test_an_empty_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match="lists no images"):
        images_of_list(tmp_path, "l.txt", "\n\n")


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
        images_of_list(tmp_path, name, text)


@pytest.mark.parametrize("name", ["a.txt", "a.zip", "a.tar", "a.parquet", "a"])
def test_a_pipe_is_an_error_and_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is a pipe"):
        open_images(tmp_path / name)
