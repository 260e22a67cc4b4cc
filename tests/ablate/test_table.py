"""Mean, spread, the table and the picture of an ablation."""

import pytest

from moco.ablate import table
from moco.ablate.plot import draw_figure, plot
from moco.ablate.results import AblationResult, AblationRow, mean, standard_deviation


def ended(accuracy: float, **measures: float) -> dict[str, object]:
    return {"scores": {"kNN-20": {"accuracy": accuracy, "standard_error": 1.1}}, "measures": measures}


@pytest.fixture
def result() -> AblationResult:
    """Three cells of two seeds: whole, half failed, failed."""
    failed = {"failed": "the loss of step 3 is nan"}
    rows = [
        AblationRow("0.9", "", 55.2, {"memory": 10.0, "steps": 50.0}, [ended(60.0, lag=0.25), ended(63.0, lag=0.35)]),
        AblationRow("0.99", "", None, {"memory": 100.0, "steps": 50.0}, [ended(50.0), failed]),
        AblationRow("0", "", "fails", {"memory": 1.0, "steps": 50.0}, [failed, failed]),
    ]
    return AblationResult(
        "momentum", "The momentum", "demo", "m", True, {"0.9": 10.0, "0.99": 100.0, "0": 1.0}, ["kNN-20"],
        ["memory", "lag", "apart"], rows, [("", "0.9", 55.2)], "a paper", 10.0,
        {"raw pixels": {"kNN-20": [40.0]}, "random encoder": {"kNN-20": [30.0, 32.0, 34.0]}}, ["It is small."],
    )  # fmt: skip


def test_mean_and_spread_are_those_computed_by_hand():
    assert mean([60.0, 63.0, 66.0]) == 63.0
    assert standard_deviation([60.0, 63.0, 66.0]) == pytest.approx((((-3) ** 2 + 0 + 3**2) / 2) ** 0.5)


def test_one_run_has_no_spread():
    assert standard_deviation([60.0]) == 0.0
    assert table.format_mean([60.0]) == "60.0"


def test_the_uncertainty_is_the_spread_of_the_seeds_or_else_of_the_test_images(result):
    assert [row.uncertainty("kNN-20") for row in result.rows] == [pytest.approx(1.5 * 2**0.5), 1.1, 0.0]


def test_the_table_has_baselines_scores_measures_and_the_papers_numbers(result):
    lines = [line.split() for line in table.text(result).splitlines()]
    assert ["chance", "10.0"] in lines
    assert ["random", "encoder", "32.0", "±", "2.0"] in lines
    assert ["0.9", "61.5", "±", "2.1", "10", "0.30", "±", "0.07", "55.2"] in lines
    assert ["0.99", "50.0", "(1", "of", "2", "failed)", "100"] in lines
    assert ["0", "failed", "1", "fails"] in lines


def test_a_measure_that_no_run_has_gets_no_column(result):
    assert "BN apart" not in table.text(result)


def test_the_text_of_a_table_names_seeds_source_and_limits(result):
    said = table.text(result)
    assert "over 2 seeds" in said
    assert "a paper" in said
    assert said.endswith("It is small.")


def test_the_markdown_table_has_the_same_cells(result):
    rows = [line for line in table.markdown(result).splitlines() if line.startswith("|")]
    assert [line.count("|") for line in rows] == [6] * 8
    assert "| 0.9 | 61.5 ± 2.1 | 10 | 0.30 ± 0.07 | 55.2 |" in rows


def test_the_line_of_the_picture_goes_through_the_means(result):
    figure = draw_figure(result)
    ours, paper = figure.axes
    assert ours.containers[0].lines[0].get_xydata().tolist() == [[10.0, 61.5], [100.0, 50.0]]
    assert paper.lines[0].get_xydata().tolist() == [[10.0, 55.2]]
    assert ours.get_xscale() == "log"


def test_cells_without_places_are_drawn_in_order_every_run_a_point(result):
    (ours, paper) = draw_figure(table_in_order(result)).axes
    assert [text.get_text() for text in ours.get_yticklabels()] == ["0.9", "0.99", "0"]
    assert ours.lines[0].get_xydata().tolist() == [[60.0, 0], [63.0, 0]]
    assert paper.lines[0].get_xydata().tolist() == [[55.2, 0]]


def table_in_order(result: AblationResult) -> AblationResult:
    return AblationResult(**{**vars(result), "places": {}, "log": False})


def test_the_picture_is_a_png(result, tmp_path):
    plot(result, tmp_path / "momentum.png")
    assert (tmp_path / "momentum.png").read_bytes().startswith(b"\x89PNG")
