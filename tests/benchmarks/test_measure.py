"""The arithmetic of the benchmarks, and what becomes of their results. Never a time."""

import json
from pathlib import Path

import pytest

from benchmarks import measure, memory, run
from benchmarks.measure import Result, Row, absent, interleaved, result

FIELDS = {"name", "ratio", "speedup", "low", "high", "memory_mb", "reference_memory_mb", "floor_share", "against"}


def test_ratio_is_the_median_of_the_ratios_within_rounds_not_the_ratio_of_medians():
    """The machine slows down by 10 in the second round: 0.5, 0.5 and 0.9 have the median 0.5; 2 / 2 would be 1."""
    found = result("x", [1.0, 20.0, 1.8], [2.0, 40.0, 2.0], against="y")
    assert found.ratio == pytest.approx(0.5)
    assert (found.low, found.high) == (0.5, 0.9)
    assert found.rounds == 3


def test_speedup_is_one_over_the_ratio():
    assert result("x", [1.0], [4.0], against="y").as_dict()["speedup"] == 4.0


def test_times_are_milliseconds_and_medians():
    found = result("x", [0.001, 0.009, 0.002], [0.003, 0.004, 0.005], against="y")
    assert (found.ours_ms, found.reference_ms) == (2.0, 4.0)


def test_share_of_the_floor_is_floor_over_ours():
    assert result("x", [4.0, 8.0], [9.0, 9.0], against="y", lower_bound=[1.0, 2.0]).floor_share == 0.25


def test_timed_functions_take_turns_with_equal_repeats():
    calls: list[str] = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, repeat=2)
    assert "".join(calls) == "ab" + 3 * "aabb"  # once to warm up
    assert {name: len(of_it) for name, of_it in times.items()} == {"a": 3, "b": 3}


def test_short_work_is_repeated_until_a_turn_is_long_enough(monkeypatch: pytest.MonkeyPatch):
    """A call takes 0.03 s by this clock, and a turn 0.1: three calls."""
    now = [0.0]

    def work() -> None:
        now[0] += 0.03

    monkeypatch.setattr(measure.clocks, "cpu", lambda: now[0])
    assert interleaved({"x": work}, rounds=2)["x"] == pytest.approx([0.03, 0.03])
    assert now[0] == pytest.approx(0.03 * (2 + 3 + 3))


def test_peer_that_is_absent_is_a_line_of_the_table_and_no_result(tmp_path: Path):
    line = absent("step/x/peer", "lightly")
    assert "lightly: not installed" in line.row()
    run.keep(tmp_path / "latest.json", [line], machine="here")
    assert json.loads((tmp_path / "latest.json").read_text()) == []


def test_line_has_as_many_cells_as_the_header():
    full = result("x", [1.0], [2.0], against="y", lower_bound=[1.0], memory=(1.0, 2.0), error=1e-8)
    for line in (full, absent("x", "y")):
        assert line.row().count("|") == measure.HEADER.splitlines()[0].count("|")


def test_a_new_result_replaces_only_the_old_one_of_its_name(tmp_path: Path):
    file = tmp_path / "latest.json"
    run.keep(file, [Result("a", "x", 1.0), Result("b", "x", 2.0)], machine="there")
    run.keep(file, [Result("b", "x", 3.0)], machine="here")
    kept = {one["name"]: (one["ratio"], one["machine"]) for one in json.loads(file.read_text())}
    assert kept == {"a": (1.0, "there"), "b": (3.0, "here")}


def test_a_result_has_every_field_of_the_schema():
    assert set(Result("a", "x", 1.0).as_dict()) >= FIELDS


def rows(*names: str) -> list[Row]:
    return [Row(name, lambda _: iter(()), slow=name.endswith("slow"), large=name.endswith("large")) for name in names]


@pytest.mark.parametrize(
    ("quick", "only", "expected"),
    [
        (False, None, ["a/b", "a/slow", "c"]),
        (True, None, ["a/b", "c"]),
        (True, ["a/"], ["a/b", "a/slow"]),
        (False, ["c", "a/s"], ["a/slow", "c"]),
        (False, ["c/one-of-its-results"], ["c"]),
        (False, ["unknown"], []),
    ],
)
def test_rows_are_chosen_by_how_their_names_begin(quick: bool, only: list[str] | None, expected: list[str]):
    assert [row.name for row in run.select(rows("a/b", "a/slow", "c"), quick=quick, only=only)] == expected


@pytest.mark.parametrize(
    ("large", "only", "expected"),
    [(False, None, ["a"]), (True, None, ["a", "a/large"]), (False, ["a"], ["a"]), (False, ["a/large"], ["a/large"])],
)
def test_benchmarks_with_large_downloads_run_only_on_request(large: bool, only: list[str] | None, expected: list[str]):
    assert [row.name for row in run.select(rows("a", "a/large"), large=large, only=only)] == expected


def test_names_of_rows_are_unique():
    names = [row.name for row in run.ROWS]
    assert len(names) == len(set(names))


STORED = sorted(run.RESULTS.glob("*.json"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_results_have_the_schema(file):
    for one in json.loads(file.read_text()):
        assert set(one) >= FIELDS
        assert one["low"] <= one["ratio"] <= one["high"]
        assert one["speedup"] == pytest.approx(1 / one["ratio"], abs=6e-4)


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_results_have_unique_names(file):
    names = [one["name"] for one in json.loads(file.read_text())]
    assert len(names) == len(set(names))


def make_bytes() -> measure.Work:
    return lambda: bytearray(64 << 20)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_peak_memory_sees_what_was_freed_again():
    peak = memory.peak(make_bytes)
    assert peak is not None
    assert peak.beyond == pytest.approx(64, abs=4)
