"""List files: a path a line, perhaps with a label."""

import os

import pytest

from moco.data.sources.folder import find_images
from tests.data.sources.trees import images_of_list, names_in, tree


@pytest.mark.parametrize("name", ["list.txt", "list.lst", "list.tsv", "list.csv", "LIST.TXT"])
def test_a_list_keeps_its_order_and_its_paths_are_from_its_folder(tmp_path, name: str):
    tree(tmp_path, "sub/b.png", "a.png")
    found = images_of_list(tmp_path, name, "sub/b.png\n\na.png\n")
    assert list(found.names) == ["sub/b.png", "a.png"]
    assert found.labels is None
    assert found.path(0) == str(tmp_path / "sub" / "b.png")


@pytest.mark.parametrize(
    ("name", "between"), [("l.txt", "\t"), ("l.tsv", "\t"), ("l.csv", ","), ("l.txt", ","), ("l.lst", ",")]
)
def test_a_second_column_is_the_label(tmp_path, name: str, between: str):
    tree(tmp_path, "a.png", "b.png", "c.png")
    found = images_of_list(tmp_path, name, "".join(f"{path}{between}{label}\n" for path, label in zip(
        ["a.png", "b.png", "c.png"], ["dog", "ant", "dog"], strict=True)))  # fmt: skip
    assert list(found.classes) == ["ant", "dog"]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]


def test_absolute_paths_in_a_list_are_used_unchanged(tmp_path):
    image = tree(tmp_path / "far", "a.png") / "a.png"
    (tmp_path / "near").mkdir()
    found = images_of_list(tmp_path / "near", "l.txt", f"{image}\n")
    assert found.path(0) == str(image)
    assert found.read(0).shape == (2, 3, 3)


def test_commas_and_spaces_belong_to_the_names_of_a_text_list(tmp_path):
    names = ["a,b.png", "c d.png", "1.5,2.png"]
    tree(tmp_path, *names)
    assert list(images_of_list(tmp_path, "l.txt", "\n".join(names)).names) == names


def test_quotes_and_headings_of_a_csv_list_are_understood(tmp_path):
    tree(tmp_path, "a,b.png", "two\nlines.png")
    found = images_of_list(tmp_path, "l.csv", 'path,label\n"a,b.png",cat\n"two\nlines.png","dog"\n')
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
    assert images_of_list(tmp_path, "l.txt", name + "\n").read(0).shape == (2, 3, 3)


def test_a_list_may_name_files_with_any_ending(tmp_path):
    assert images_of_list(tree(tmp_path, "image-0001"), "l.txt", "image-0001\n").read(0).shape == (2, 3, 3)


def test_a_list_and_a_folder_may_be_combined(tmp_path):
    tree(tmp_path / "one", "a.png")
    tree(tmp_path / "two", "b.png")
    (tmp_path / "more.txt").write_text(f"one/a.png\n{tmp_path / 'one' / 'a.png'}\n")
    found = find_images([tmp_path / "two", tmp_path / "more.txt"])
    assert list(found.names) == ["two/b.png", "more/one/a.png", f"more/{tmp_path}/one/a.png"]
    assert [found.path(i) for i in (1, 2)] == [str(tmp_path / "one" / "a.png")] * 2
