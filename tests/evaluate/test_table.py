import json
import math
import statistics

import pytest

from moco.evaluate.table import Score, Table


def table(ours: float, pixels: float, random: float, *, images: int = 2000) -> Table:
    rows = {
        "raw pixels": {"kNN-20": Score(pixels, images)},
        "random encoder": {"kNN-20": Score(random, images)},
        "run1": {"kNN-20": Score(ours, images)},
    }
    return Table("run1", ["raw pixels", "random encoder"], rows, chance=10.9, classes=10, how="train/ and test/ of x")


def test_the_standard_error_of_an_accuracy_is_the_binomials():
    assert Score(80, 400).error == pytest.approx(100 * math.sqrt(0.8 * 0.2 / 400))


def test_the_standard_error_of_a_mean_has_the_draws_in_it():
    draws = [50.0, 54.0, 46.0, 52.0, 48.0]
    expected = math.sqrt(100**2 * 0.5 * 0.5 / 1000 + statistics.variance(draws) / 5)
    score = Score(50, 1000, draws=draws)
    assert score.error == pytest.approx(expected)
    assert str(score) == "50.0 ± 3.2"


@pytest.mark.parametrize(
    ("ours", "start"),
    [
        (71.9, "run1 is better than its best baseline"),
        (66.5, "run1 differs from its best baseline by less than 2 standard errors"),
        (60.0, "run1 is worse than its best baseline"),
    ],
)
def test_the_verdict_says_which_side_of_the_better_baseline_it_is_on(ours: float, start: str):
    verdict = table(ours, 65.4, 48.6).verdict()
    assert verdict.startswith(start)
    assert verdict.endswith(f"kNN-20 ({ours} against 65.4 of raw pixels).")


def test_the_better_baseline_counts_even_when_it_is_the_random_encoder():
    assert table(70, 48.6, 69.0).verdict().startswith("run1 differs from its best baseline by less")


def test_with_more_images_the_same_gap_becomes_clear():
    assert table(66.5, 65.4, 48.6, images=100_000).verdict().startswith("run1 is better")


def test_a_mixed_verdict_names_each_score_once_on_its_side():
    rows = {
        "raw pixels": {"linear": Score(30, 2000), "1-NN": Score(65, 2000)},
        "run1": {"linear": Score(59, 2000), "1-NN": Score(55, 2000)},
    }
    verdict = Table("run1", ["raw pixels"], rows, chance=10, classes=10, how="x").verdict()
    ahead, behind = verdict.split(". ")
    assert "linear (59.0 against 30.0" in ahead
    assert "1-NN (55.0 against 65.0" in behind


def test_the_text_has_chance_and_every_row_in_aligned_columns():
    lines = str(table(71.9, 65.4, 48.6)).splitlines()
    assert lines[0].split("  ")[0] == "held-out accuracy [%]"
    body = lines[2:6]
    assert [line.split("  ")[0] for line in body] == [
        "chance (largest of 10 classes)", "raw pixels", "random encoder", "run1",
    ]  # fmt: skip
    assert [line.split()[-1] for line in body] == ["10.9", "65.4", "48.6", "71.9"]
    assert len({len(line) for line in lines[:6]}) == 1


def test_a_table_of_all_kinds_fits_a_terminal_of_80_columns():
    plain, draws = Score(51.7, 2000), Score(45.5, 2000, draws=(40.0, 50.0, 46.5))
    columns = {"kNN-200": plain, "1-NN": plain, "linear": plain, "linear, 10 labels a class": draws,
               "1-NN, 10 labels a class": draws}  # fmt: skip
    lines = str(Table("run1", ["raw pixels"], {"raw pixels": columns, "run1": columns}, 10, 10, how="x")).splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    assert {len(line) for line in lines[: rule + 4]} == {len(lines[rule])}
    assert len(lines[rule]) <= 80
    names = [" ".join(words) for words in zip(*(line[-26:].split("  ")[-2:] for line in lines[:rule]), strict=True)]
    assert [" ".join(name.split()) for name in names][-1] == "1-NN, 10 labels a class"


def test_the_table_shows_chosen_settings():
    rows = {"raw pixels": {"linear": Score(30, 20, setting="L2 0.1")}, "run1": {"linear": Score(30, 20)}}
    assert "linear: raw pixels L2 0.1" in str(Table("run1", ["raw pixels"], rows, chance=50, classes=2, how="x"))


def test_the_dict_is_json_with_the_same_numbers():
    content = json.loads(json.dumps(table(71.9, 65.4, 48.6).to_dict()))
    assert content["rows"]["run1"]["kNN-20"]["accuracy"] == 71.9
    assert content["rows"]["raw pixels"]["kNN-20"]["standard_error"] == pytest.approx(Score(65.4, 2000).error)
    assert (content["chance"], content["judged"]) == (10.9, "run1")
    assert content["verdict"].startswith("run1 is better")


def test_chance_is_a_baseline_too():
    rows = {name: {"1-NN": Score(score, 2000)} for name, score in (("raw pixels", 60.0), ("mine", 70.0))}
    uneven = Table("mine", ["raw pixels"], rows, chance=80.0, classes=2, how="x")
    assert uneven.verdict().startswith("mine is worse than its best baseline")
    assert uneven.verdict().endswith("1-NN (70.0 against 80.0 of chance).")


def test_a_mixed_verdict_does_not_conclude_that_the_classes_were_learned():
    rows = {
        "raw pixels": {"1-NN": Score(60, 2000), "kNN-20": Score(60, 2000)},
        "mine": {"1-NN": Score(70, 2000), "kNN-20": Score(50, 2000)},
    }
    verdict = Table("mine", ["raw pixels"], rows, chance=10.0, classes=10, how="x").verdict()
    assert verdict.startswith("mine is better than its best baseline: 1-NN")
    assert "mine is worse than its best baseline" in verdict
    assert "taught" not in verdict
