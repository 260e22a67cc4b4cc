"""List files that are not as expected: the message shows the first line, and what was expected."""

from pathlib import Path

import pytest
from sample_pictures import make_pictures

from moco.data.sources.folder import DataError, find_images
from moco.data.sources.path_list import read_list


def listed(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", "a.png,cat,3\n", "line 1 of .* has 3 columns"),
        ("l.tsv", "a.png\tcat\t3\n", "line 1 of .* has 3 columns"),
        ("l.txt", "a.png cat\nb.png dog\n", "2 of 2 files listed"),
        ("l.txt", "a.png;cat\nb.png;dog\n", "2 of 2 files listed"),
        ("l.csv", "a.png;cat\nb.png;dog\n", "2 of 2 files listed"),
        ("l.csv", "a.png\tcat\nb.png\tdog\n", "2 of 2 files listed"),
    ],
)
def test_the_error_for_a_list_with_other_columns_says_what_is_expected(
    tmp_path: Path, name: str, content: str, said: str
):
    source = listed(tmp_path, name, content)
    with pytest.raises(DataError, match=said) as caught:
        find_images(source)
    first = content.splitlines()[0]
    assert f"Its first line is {first!r}" in str(caught.value)
    assert "Expected a path a line, or a path and a label with a tab between them" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_the_error_for_a_list_in_utf_16_says_to_save_it_as_utf_8(tmp_path: Path, encoding: str):
    make_pictures(tmp_path, 2)
    source = listed(tmp_path, "l.txt", "0000.png\tcat\n0001.png\tdog\n".encode(encoding))
    with pytest.raises(DataError, match="Save it as UTF-8"):
        find_images(source)


@pytest.mark.parametrize("name", ["l.txt", "l.tsv", "l.csv"])
def test_blanks_around_a_label_are_no_part_of_it(tmp_path: Path, name: str):
    between = "," if name == "l.csv" else "\t"
    lines = [f"{i}.png{between}{label}" for i, label in enumerate(["cat", "cat ", " cat", "dog\u00a0", "dog"])]
    labels = read_list(listed(tmp_path, name, "\n".join(lines))).labels.labelling()
    assert [labels.names[number] for number in labels.numbers] == ["cat"] * 3 + ["dog"] * 2


def test_a_label_of_spaces_is_not_a_label(tmp_path: Path):
    with pytest.raises(DataError, match="line 2 of"):
        read_list(listed(tmp_path, "l.csv", "a.png,cat\nb.png,  \n"))


def test_a_line_of_blanks_is_passed_over(tmp_path: Path):
    names, labels = read_list(listed(tmp_path, "l.txt", "a.png\n  \nb.png\n"))
    assert (list(names), list(labels.codes)) == (["a.png", "b.png"], [-1, -1])


def test_a_first_line_that_does_not_print_is_escaped_and_cut(tmp_path: Path):
    source = listed(tmp_path, "l.txt", "\x1b[2J" + "a" * 1000)
    with pytest.raises(DataError, match="are missing") as caught:
        find_images(source)
    assert "\x1b" not in str(caught.value)
    assert "a" * 200 not in str(caught.value).split("Expected")[1]


def test_labels_that_look_the_same_are_one_class(tmp_path: Path):
    make_pictures(tmp_path, 3)
    lines = ["0000.png,caf\u00e9", "0001.png,cafe\u0301", "0002.png,tea"]
    found = find_images(listed(tmp_path, "l.csv", "\n".join(lines)))
    assert list(found.classes) == ["caf\u00e9", "tea"]
