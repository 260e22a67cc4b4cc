"""The report of a run: its numbers, its escaping, and what it may load and replace."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.report.charts import average_points, axis, text_of
from moco.report.contents import report_of_run
from moco.text import one_line
from moco.train.report_contents import read_contents
from moco.train.report_run import write_files
from moco.train.run_folder import RunError
from tests.report.payloads import PAYLOADS
from tests.report.report_pages import Page, make_pictures_of_page, make_run, numbers_in_json


def write_full(folder: Path, *, text: str = "", labelled: bool = True, **state) -> Page:
    """The page of a run that has everything that a page can show."""
    run, pictures = make_run(folder, text=text, full=True, **state), make_pictures_of_page(text=text, labelled=labelled)
    write_files(run / "report.html", report_of_run(read_contents(run), pictures), pictures.images)
    return Page((run / "report.html").read_text())


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_every_number_of_the_page_is_in_its_json_file(tmp_path, labelled, finished):
    page = write_full(tmp_path / "run", labelled=labelled, finished=finished)
    assert len(page.numbers) > 100
    assert page.numbers - numbers_in_json(tmp_path / "run" / "report.json") == set()


def test_every_number_of_a_comparison_is_in_its_json_file(tmp_path):
    runs = [make_run(tmp_path / name, epochs=number, full=True) for name, number in (("a", 4), ("b", 8), ("c", 3))]
    moco.write_report(runs, tmp_path / "all.html")
    page = Page((tmp_path / "all.html").read_text())
    assert len(page.numbers) > 50
    assert page.numbers - numbers_in_json(tmp_path / "all.json") == set()


def test_the_page_has_each_part_that_the_run_has(tmp_path):
    page = write_full(tmp_path / "run", finished=True)
    ids = {value for name, value in page.attributes if name == "id"}
    parts = {
        "worth",
        "scores",
        "curves",
        "views",
        "neighbours",
        "worst",
        "map",
        "duplicates",
        "outliers",
        "run",
        "next",
    }
    assert parts <= ids
    links = {value.removeprefix("#") for name, value in page.attributes if name == "href"}
    assert links == parts


def test_a_page_loads_nothing_and_allows_only_its_own_style_and_script(tmp_path):
    page, text = write_full(tmp_path / "run"), (tmp_path / "run" / "report.html").read_text()
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset", "background", "action")]
    assert {re.match(r"#\w+$|data:image/webp;base64,", value) is not None for value in addresses} == {True}
    assert [value for name, value in page.attributes if name == "style" or name.startswith("on")] == []
    policy = next(v for _, v in page.attributes if "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for part in (re.search(r"<style>(.*?)</style>", text, re.S), re.search(r"<script>(.*?)</script>", text, re.S)):
        assert part is not None
        assert base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode() in policy


def test_there_are_at_least_60_payloads():
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 60


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> Page:
    return write_full(tmp_path_factory.mktemp("usual") / "MARK", text="MARK")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_others_is_text_in_the_page(tmp_path, payload, usual):
    name = payload.replace("/", "_").replace("\0", "_")  # these cannot be in the name of a folder
    page = write_full(tmp_path / name, text=payload)
    assert page.tags == usual.tags
    assert [one for one, _ in page.attributes] == [one for one, _ in usual.attributes]
    shown, expected = "".join(page.texts), one_line(payload)
    assert shown.replace("\n", "").isprintable()
    assert f"DataError: {expected}" in shown  # an exception's text
    assert f"photos{expected}" in shown or f"photos{expected}".replace("'", "'\"'\"'") in shown  # a command's argument
    assert f"{expected}3: " in shown  # a class
    assert one_line(name) in shown  # the run
    assert f"{expected}000.jpg" in [value for attribute, value in page.attributes if attribute == "alt"]  # a file
    assert shown.count(expected) >= "".join(usual.texts).count("MARK") / 3


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "run")
    moco.write_report(run)
    before = (run / "report.html").read_bytes(), (run / "report.json").read_bytes()
    moco.write_report(run)
    assert ((run / "report.html").read_bytes(), (run / "report.json").read_bytes()) == before


def test_pictures_of_an_earlier_report_of_the_run_stay(tmp_path):
    write_full(tmp_path / "run", finished=True)
    before = (tmp_path / "run" / "report.html").read_bytes()
    moco.write_report(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_bytes() == before


@pytest.mark.parametrize("change", ["another run", "no images", "an address", "a missing key", "a wrong kind"])
def test_pictures_of_a_changed_file_or_another_run_are_left_out(tmp_path, change):
    write_full(tmp_path / "run")
    file = tmp_path / "run" / "report.json"
    content = json.loads(file.read_text())
    sections = content["runs"][0]["pictures"]["sections"]
    if change == "another run":
        content["runs"][0]["run_id"] = "1" * 32
    elif change == "no images":
        content["images"] = {}
    elif change == "an address":
        content["images"] = dict.fromkeys(content["images"], 'https://example.org/x.png"')
    elif change == "a missing key":
        del sections[1]["rows"]
    else:
        sections[0]["groups"] = 7
    file.write_text(json.dumps(content))
    moco.write_report(tmp_path / "run")
    page = Page((tmp_path / "run" / "report.html").read_text())
    assert "img" not in page.tags
    assert "No pictures yet" in "".join(page.texts)


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_a_file_of_the_user_is_not_replaced(tmp_path, name):
    run = make_run(tmp_path / "run")
    (run / name).write_text("mine")
    with pytest.raises(RunError, match="is not a report"):
        moco.write_report(run)
    assert (run / name).read_text() == "mine"
    assert not (run / ({"report.html", "report.json"} - {name}).pop()).exists()


def test_a_comparison_lists_the_settings_that_differ_and_has_a_curve_of_each_run(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", epochs=8)]
    content = moco.write_report(runs, tmp_path / "both.html")
    assert content["differences"]["rows"] == [{"setting": "optim.epochs", "cells": ["4", "8"]}]
    assert [one["run"] for one in content["charts"][0]["series"]] == ["a", "b"]
    assert (tmp_path / "both.html").is_file()
    assert (tmp_path / "both.json").is_file()


def test_scores_beside_baselines_have_their_paired_intervals(tmp_path):
    run = make_run(tmp_path / "run", full=True)
    rows = moco.write_report(run)["runs"][0]["comparison"]["rows"]
    assert [row["cells"][0]["text"] for row in rows] == ["73.2", "63.0", "64.2"]
    assert [row["cells"][0]["seeds"] for row in rows] == ["", "61.3 to 64.8, 3 seeds", ""]
    assert rows[1]["cells"][0]["interval"] == "+9.4 (+7.1 to +11.6)"
    assert [row["cells"][0]["clear"] for row in rows] == [False, True, False]  # the last interval begins below zero


@pytest.mark.parametrize("damage", [{"scores": {}}, {"level": "x"}, {"verdict": None}, {"differences": 3}])
def test_a_damaged_comparison_is_left_out(tmp_path, damage):
    run = make_run(tmp_path / "run", full=True)
    file = run / "compare.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert moco.write_report(run)["runs"][0]["comparison"] is None


def test_the_reason_of_a_run_that_stopped_is_in_its_report(tmp_path):
    assert moco.write_report(make_run(tmp_path / "run"))["runs"][0]["state"]["text"].endswith("DataError: a disk")


def test_the_command_prints_the_page_and_refuses_what_is_no_run(tmp_path):
    run = make_run(tmp_path / "run")
    assert CliRunner().invoke(app, ["report", str(run)]).stdout.strip() == str(run / "report.html")
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["report", str(tmp_path), "--data", str(tmp_path)]).exit_code == 2


def test_an_axis_has_round_ticks_that_enclose_its_values():
    made = axis([0.3, 7.9])
    assert (made["low"], made["high"]) == (0, 8)
    assert [tick["text"] for tick in made["ticks"]] == ["0", "2", "4", "6", "8"]
    assert axis([5.0, 5.0])["low"] < 5 < axis([5.0, 5.0])["high"]


def test_a_long_curve_becomes_means_and_keeps_its_last_point():
    points = [(float(i), 2.0 * i) for i in range(1001)]
    found = average_points(points)
    assert len(found) <= 240
    assert found[-1] == points[-1]
    assert all(y == pytest.approx(2 * x) for x, y in found)


@pytest.mark.parametrize(
    ("value", "text"), [(8.3181, "8.318"), (62.5, "62.5"), (0.0, "0"), (12000.0, "12,000"), (1.3e-7, "1.3e-07")]
)
def test_a_number_is_written_with_about_four_digits(value, text):
    assert text_of(value) == text
