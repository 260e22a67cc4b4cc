"""The tables of speed."""

import json

import pytest

from benchmarks import run, table
from benchmarks.gpu.results import to_markdown
from benchmarks.measure import Result, result

DEMO = result("step/demo", [1.0, 1.0], [2.0, 4.0], against="the usual", lower_bound=[0.5, 0.5]).as_dict() | {
    "machine": "a"
}


def test_a_line_has_ratio_spread_speedup_and_the_share_of_the_lower_bound():
    (line,) = table.table([[DEMO]]).splitlines()[4:]
    assert line.split(" | ")[1:4] == ["0.38 (0.25-0.50)", "2.7 x", "50%"]
    assert line.endswith("the usual |")


def test_the_machine_is_named():
    assert table.table([[DEMO]]).startswith("Measured on a.")


def test_lines_have_as_many_cells_as_the_header():
    made = table.table([[DEMO | {"memory_mb": 3.0}, DEMO | {"name": "knn/20000"}]]).splitlines()[2:]
    assert len({line.count("|") for line in made}) == 1
    assert len(made) == 4


def test_only_rows_that_are_measured_are_shown():
    assert len(table.table([[DEMO, DEMO | {"name": "unknown"}]]).splitlines()) == 5


def test_every_row_that_runs_has_a_title_and_every_title_a_row():
    """A row's results begin with its name."""
    rows = [row.name for row in run.ROWS if row.name != "loss/per-key"]  # which compares us with ourselves
    assert [row for row in rows if not any(name.startswith(row) for name in table.TITLES)] == []
    assert [name for name in table.TITLES if not name.startswith(tuple(rows))] == []


def test_a_table_is_put_between_the_marks_and_nothing_else_changes():
    text = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
    assert table.put(text, "new") == f"a\n{table.BEGIN}\nnew\n{table.END}\nb\n"
    assert table.put(table.put(text, "new"), "new") == table.put(text, "new")


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN}{table.END}" * 2])
def test_marks_that_are_not_there_are_an_error(text: str):
    with pytest.raises(ValueError, match="once each"):
        table.put(text, "new")


def test_the_readme_and_the_page_of_speed_say_what_was_measured():
    results = table.stored()
    readme, page = table.README.read_text(), table.SPEED.read_text()
    assert table.put(readme, table.table(results, only=table.IN_README)) == readme
    assert table.put(page, table.table(results)) == page
    on_gpu = to_markdown(json.loads(table.ON_GPU.read_text())).rstrip()
    assert table.put(page, on_gpu, begin=table.GPU_BEGIN, end=table.GPU_END) == page


def test_processors_stand_side_by_side():
    other = DEMO | {"machine": "b, 2 cores", "ratio": 0.5, "low": 0.4, "high": 0.6}
    made = table.table([[DEMO, DEMO | {"name": "knn/20000"}], [other]]).splitlines()
    assert made[0] == "Measured on a; b, 2 cores."
    assert made[2].startswith("| what | ours / reference (spread), a | ours / reference (spread), b | speed-up |")
    assert made[4].split(" | ")[1:4] == ["0.38 (0.25-0.50)", "0.50 (0.40-0.60)", "2.7 x"]
    assert made[5].split(" | ")[2] == ""  # not measured there
    assert len({line.count("|") for line in made[2:]}) == 1


@pytest.mark.parametrize(("name", "file"), [
    ("AMD EPYC", "amd-epyc"), ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon"), ("aarch64", "aarch64"),
])  # fmt: skip
def test_each_kind_of_processor_has_a_file(name, file):
    assert run.file_name(name) == file


def test_a_table_can_have_some_of_the_rows_only():
    made = table.table([[DEMO, DEMO | {"name": "knn/20000"}]], only=["knn/20000"]).splitlines()
    assert len(made) == 5
    assert made[-1].startswith("| kNN")


def test_a_result_without_memory_or_floor_has_empty_cells():
    bare = Result("step/demo", "x", 0.5, 0.4, 0.6).as_dict() | {"machine": "a"}
    assert " |  |  | x |" in table.table([[bare]])
