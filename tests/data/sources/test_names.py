"""Names as one piece of memory: the same names as the strings that they were made from."""

import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.data.sources import file_status, names
from moco.data.sources.file_status import MISSING
from moco.data.sources.file_status import file_status as look
from moco.data.sources.folder import find_images
from moco.data.sources.images import LabelCodes
from moco.data.sources.names import Chosen, Names, Numbered, hashes_of, join_names, pack_names, same_names, with_prefix
from moco.data.sources.path_list import read_list

# as os.fsdecode makes them: an escaped byte never follows another that it would make a letter with
NAME = st.lists(st.sampled_from(["a", "/", ".png", "é", "日", "\udcff", "😀", "\t", " "]), max_size=6).map("".join)


@given(given=st.lists(NAME, max_size=20), rows=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_names_are_those_that_were_given(given: list[str], rows: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "ROWS", rows)
        made = pack_names(given)
        assert list(made) == given == made[:]
        assert [made[i] for i in range(len(given))] == given
        assert [made[-i] for i in range(1, len(given) + 1)] == given[::-1]
        assert made == given == pickle.loads(pickle.dumps(made))
        assert hashes_of(made, len(made)).tolist() == list(map(hash, given))


@given(given=st.lists(NAME, max_size=20), rows=st.integers(1, 5), data=st.data())
@settings(max_examples=100, deadline=None)
def test_names_are_taken_joined_and_prefixed_as_a_list_is(given: list[str], rows: int, data):
    places = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=10)) if given else []
    prefix, cut = data.draw(NAME), data.draw(st.integers(0, len(given)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "ROWS", rows)
        made = pack_names(given)
        assert list(made.take(np.array(places, dtype=np.int64))) == [given[i] for i in places]
        assert list(Chosen(made, np.array(places, dtype=np.int64))) == [given[i] for i in places]
        assert list(join_names([pack_names(given[:cut]), pack_names([]), pack_names(given[cut:])])) == given
        assert list(with_prefix(prefix, made)) == [prefix + name for name in given]
        assert list(made.between(cut, len(given))) == given[cut:]


def test_other_names_are_not_equal():
    one = pack_names(["a", "bc"])
    for other in (["a"], ["a", "bd"], ["ab", "c"], "abc"):
        assert one != other
        assert isinstance(other, str) or (one != pack_names(other) and not same_names(list(one), other))
    assert same_names(["a", "bc"], one)
    assert same_names(one, Chosen(one, np.array([0, 1])))
    with pytest.raises(IndexError):
        one[2]


def test_images_without_names_have_their_numbers():
    assert list(Numbered(3)) == ["0", "1", "2"]
    assert Numbered(10**9)[-1] == "999999999"


LINES = st.lists(
    st.sampled_from(["a.png", "b c.png", "d.png ", " e.png", "", "  ", "\u00a0", "é.png", "\udcff.png", "f.jpg\r"]),
    max_size=6,
)


@given(lines=LINES, end=st.booleans(), bom=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_list_without_columns_has_the_lines_that_a_loop_over_them_finds(
    tmp_path_factory, lines: list[str], end: bool, bom: bool
):
    file = tmp_path_factory.getbasetemp() / "lines.txt"
    text = ("\ufeff" if bom else "") + "\n".join(lines) + ("\n" if end else "")
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    # a carriage return that no line feed follows is a part of the name
    whole = [line.removesuffix("\r") if end or i < len(lines) - 1 else line for i, line in enumerate(lines)]
    assert list(read_list(str(file)).names) == [line for line in whole if line.strip()]


@given(labels=st.lists(st.sampled_from([None, "cat", "dog", "e\u0301", "\u00e9"]), max_size=12), data=st.data())
@settings(max_examples=60, deadline=None)
def test_labels_by_code_are_those_by_name(labels: list[str | None], data):
    cut, codes, rest = data.draw(st.integers(0, len(labels))), LabelCodes(), LabelCodes()
    for place, label in enumerate(labels):
        (codes if place < cut else rest).add(label)
    codes.extend(rest)
    places = data.draw(st.permutations(range(len(labels))))[: data.draw(st.integers(0, len(labels)))]
    codes.take(np.array(places, dtype=np.int64))
    found, expected = codes.labelling(), [labels[i] for i in places]
    composed = [None if one is None else {"e\u0301": "\u00e9"}.get(one, one) for one in expected]
    assert [None if number < 0 else found.names[number] for number in found.numbers] == composed
    assert list(found.names) == sorted({one for one in composed if one is not None})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("", "b", "b/c", "b.d"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("0.png", "~.png", "é.png"):
            (tmp_path / folder / name).write_bytes(b"x" * len(folder + name))
    return tmp_path


def test_images_lie_in_the_order_of_the_bytes_of_their_paths_whatever_lies_in_a_directory(tree: Path):
    found = find_images(tree)
    assert len(found) == 12
    assert all(os.fsencode(one) < os.fsencode(next_) for one, next_ in pairwise(found.names))
    assert found.sizes.tolist() == [(tree / name).stat().st_size for name in found.names]
    assert found.mtimes.tolist() == [(tree / name).stat().st_mtime_ns for name in found.names]
    labels = [found.labelling.names[i] if i >= 0 else None for i in found.labelling.numbers]
    assert labels == [name.split("/")[0] if "/" in name else None for name in found.names]


def expected_status(tree: Path, some: Names) -> list[tuple[int, int]]:
    """(size, time of change) by a loop."""
    there = [(tree / name).stat() if name.endswith(".png") and "missing" not in name else None for name in some]
    return [(MISSING, 0) if one is None else (one.st_size, one.st_mtime_ns) for one in there]


@pytest.mark.parametrize("slow", [False, True])
def test_status_by_threads_is_that_of_a_loop(tree: Path, monkeypatch: pytest.MonkeyPatch, slow: bool):
    monkeypatch.setattr(file_status, "SLOW", -1.0 if slow else 1e9)
    some = pack_names([*find_images(tree).names, "missing.png", "b", "a\0b"] * 20)
    found = look(str(tree), some)
    assert list(zip(found.sizes.tolist(), found.mtimes.tolist(), strict=True)) == expected_status(tree, some)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a safe fork")
def test_status_by_processes_is_that_of_a_loop_also_if_they_fail(tree: Path):
    """In a process of its own: this one has threads, so it must not fork."""
    code = """if True:
    import os, sys
    from moco.data.sources import file_status
    from moco.data.sources.names import pack_names
    some, forked = pack_names(sys.stdin.read().split("\\n")), []
    fork, die_with = os.fork, file_status.die_with
    def count():
        forked.append(fork())
        return forked[-1]
    def refuse():
        raise OSError("no process left")
    for way, os.fork, file_status.die_with in [
        ("processes", count, die_with), ("failing", count, lambda parent: os._exit(1)), ("none", refuse, die_with)
    ]:
        file_status.PER_PROCESS, file_status.cores = 70, lambda: 3
        found = file_status.file_status(sys.argv[1], some)
        print(way, len(forked), list(zip(found.sizes.tolist(), found.mtimes.tolist())))
    """
    some = pack_names([*find_images(tree).names, "missing.png", "b"] * 20)  # 280: four processes of 94 at most
    done = subprocess.run(
        [sys.executable, "-c", code, tree], input="\n".join(some).encode(), capture_output=True, timeout=60, check=False
    )
    expected = expected_status(tree, some)
    lines = [f"processes 2 {expected}", f"failing 4 {expected}", f"none 4 {expected}"]
    assert (done.stdout.decode().splitlines(), done.stderr) == (lines, b"")


def test_a_million_names_take_the_memory_of_their_bytes():
    made = pack_names(f"{i:09d}.jpg" for i in range(100_000))
    assert made.text.nbytes + made.ends.nbytes == 100_000 * (13 + 8)
    assert isinstance(made, Names)
