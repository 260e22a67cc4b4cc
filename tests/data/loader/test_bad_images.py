"""Bad images are skipped by name, and too many are an error."""

import csv
import os
import threading
import time
from pathlib import Path

import pytest

from moco.data.loader import bad_images as module
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import DataError


def rows(file: Path) -> list[list[str]]:
    with open(file, newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return list(csv.reader(opened))


def test_bad_images_are_written_with_their_reasons(tmp_path):
    quarantine = Quarantine(tmp_path / "bad.csv", None, 100)
    quarantine.add("a, b.jpg", "truncated")
    quarantine.add("c.jpg", 'not "an" image')
    assert rows(tmp_path / "bad.csv") == [["name", "reason"], ["a, b.jpg", "truncated"], ["c.jpg", 'not "an" image']]
    assert len(quarantine) == 2


def test_no_file_is_made_without_bad_images(tmp_path):
    Quarantine(tmp_path / "bad.csv", None, 100)
    assert not (tmp_path / "bad.csv").exists()


def test_a_bad_image_is_listed_once_also_across_restarts(tmp_path):
    for _ in range(3):
        quarantine = Quarantine(tmp_path / "bad.csv", None, 100)
        quarantine.add("a.jpg", "cut")
        quarantine.add("a.jpg", "cut in another way")
        assert len(quarantine) == 1
    assert rows(tmp_path / "bad.csv") == [["name", "reason"], ["a.jpg", "cut"]]


def test_without_a_file_bad_images_are_only_counted():
    quarantine = Quarantine(None, None, 100)
    quarantine.add("a.jpg", "cut")
    assert quarantine.bad == {"a.jpg": "cut"}


@pytest.mark.parametrize(
    ("max_bad", "total", "limit"),
    [
        (None, 100, 10),
        (None, 10_000, 10),
        (None, 50_000, 50),
        (0, 1000, 0),
        (3, 1000, 3),
        (0.02, 1000, 20),
        (0.5, 4, 2),
        (1, 1000, 1),
        (25.0, 1000, 25),
    ],
)
def test_more_than_the_limit_are_an_error(max_bad: float | None, total: int, limit: int):
    quarantine = Quarantine(None, max_bad, total)
    for i in range(limit):
        quarantine.add(f"{i}.jpg", "cut")
    quarantine.add("0.jpg", "cut") if limit else None  # one that is known already is not one more
    with pytest.raises(DataError, match=f"{limit + 1} of"):
        quarantine.add("one more.jpg", "cut")


@pytest.mark.parametrize("max_bad", [-1, -0.5, float("nan")])
def test_a_limit_that_is_not_a_number_of_images_is_an_error(max_bad: float):
    with pytest.raises(DataError, match="max_bad"):
        Quarantine(None, max_bad, 10)


def test_the_error_for_too_many_bad_images_names_the_first_and_says_what_to_do(tmp_path):
    quarantine = Quarantine(tmp_path / "bad.csv", 1, 10)
    quarantine.add("a.jpg", "cut")
    with pytest.raises(DataError, match=r"a\.jpg: cut; b\.jpg: gone .*bad\.csv.*--max-bad"):
        quarantine.add("b.jpg", "gone")


def test_bad_images_of_an_earlier_start_count(tmp_path):
    Quarantine(tmp_path / "bad.csv", 1, 10).add("a.jpg", "cut")
    with pytest.raises(DataError, match="2 of 10"):
        Quarantine(tmp_path / "bad.csv", 1, 10).add("b.jpg", "cut")


ODD = [
    "=1+1.jpg",
    "+x",
    "-x",
    "@x",
    "\tx",
    "'x",
    "'=x",
    "two\nlines",
    'quo"te',
    os.fsdecode(b"caf\xe9"),
    "😀",
    "a\rb",
    "",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_unusual_names_are_recognised_after_a_restart(tmp_path, name: str):
    Quarantine(tmp_path / "bad.csv", None, 100).add(name, "cut")
    Quarantine(tmp_path / "bad.csv", None, 100).add("other", "cut")
    assert list(Quarantine(tmp_path / "bad.csv", None, 100).bad) == [name, "other"]


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(tmp_path, cell: str):
    Quarantine(tmp_path / "bad.csv", None, 100).add(cell, cell)
    assert all(one[0] not in "=+-@\t\r" for one in rows(tmp_path / "bad.csv")[1])


def test_a_reason_is_one_printable_line_of_bounded_length(tmp_path):
    Quarantine(tmp_path / "bad.csv", None, 100).add("a.jpg", "two\nlines \x1b[31m " + "x" * 10_000)
    reason = rows(tmp_path / "bad.csv")[1][1]
    assert reason.startswith("two lines ?[31m x")
    assert reason.isprintable()
    assert len(reason) == 200


@pytest.mark.parametrize("name", ["b.jpg", "two\nlines.jpg", 'qu"o"te, comma.jpg'])
def test_a_row_torn_by_a_kill_is_cut_off_and_written_again(tmp_path, name: str):
    quarantine = Quarantine(tmp_path / "bad.csv", None, 100)
    quarantine.add("a.jpg", "cut")
    whole = (tmp_path / "bad.csv").read_bytes()
    quarantine.add(name, "gone")
    full = (tmp_path / "bad.csv").read_bytes()
    for length in range(len(whole) + 1, len(full)):
        (tmp_path / "bad.csv").write_bytes(full[:length])
        Quarantine(tmp_path / "bad.csv", None, 100).add(name, "gone")
        assert (tmp_path / "bad.csv").read_bytes() == full


def test_a_torn_heading_is_written_again(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b'"name","re')
    Quarantine(tmp_path / "bad.csv", None, 100).add("a.jpg", "cut")
    assert rows(tmp_path / "bad.csv") == [["name", "reason"], ["a.jpg", "cut"]]


@pytest.mark.parametrize("text", ["my,own,notes\n", "my notes", "name,size\na.jpg,7\n", "name,reason\na.jpg,x,y\n"])
def test_another_file_with_the_name_of_the_list_is_an_error_and_unchanged(tmp_path, text: str):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match="move it away"):
        Quarantine(tmp_path / "bad.csv", None, 100)
    assert (tmp_path / "bad.csv").read_text() == text


def test_a_file_that_a_spreadsheet_has_saved_is_understood(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"name,reason\r\na.jpg,cut\r\n\r\n")
    assert Quarantine(tmp_path / "bad.csv", None, 100).bad == {"a.jpg": "cut"}


def test_one_thread_at_a_time_writes(tmp_path, monkeypatch):
    inside, most, append = [], [], module._append

    def slowly(*row):
        inside.append(row)
        time.sleep(0.01)
        most.append(len(inside))
        append(*row)
        inside.pop()

    monkeypatch.setattr(module, "_append", slowly)
    quarantine = Quarantine(tmp_path / "bad.csv", 1000, 1000)
    threads = [threading.Thread(target=quarantine.add, args=(f"{i}.jpg", "cut")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_threads_add_at_once_without_losing_any(tmp_path):
    quarantine = Quarantine(tmp_path / "bad.csv", 1000, 1000)
    threads = [
        threading.Thread(target=lambda: [quarantine.add(f"{i}.jpg", "cut") for i in range(100)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in rows(tmp_path / "bad.csv")[1:]) == sorted(f"{i}.jpg" for i in range(100))


@pytest.mark.parametrize("note", ["checked by hand\n", "checked by hand", "x.jpg,looked at"])
def test_a_note_at_the_end_of_the_list_is_not_removed_as_an_incomplete_row(tmp_path, note):
    file = tmp_path / "bad.csv"
    Quarantine(file, None, 100).add("a.jpg", "cut")
    content = file.read_text() + note
    file.write_text(content)
    with pytest.raises(DataError, match="is not a list of bad images"):
        Quarantine(file, None, 100)
    assert file.read_text() == content
