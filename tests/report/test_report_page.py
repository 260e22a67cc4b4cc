"""The report of a run: its numbers, its escaping, and what it may load and replace."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moco
from moco import recipes
from moco.cli import app
from moco.report.charts import averaged, axis, text_of
from moco.train.run_folder import RunError

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?")
PAYLOADS = (
    "<script>window.hit=1</script>", "</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>",
    "\"><svg onload=window.hit=1>", "' onmouseover='window.hit=1", "</title><script>window.hit=1</script>",
    "</style><script>window.hit=1</script>", "{{ 7 * 7 }}", "{% include 'x' %}", "<!--", "javascript:window.hit=1",
    "<iframe src='data:text/html,<script>parent.hit=1</script>'>", "<a href='javascript:window.hit=1'>x</a>",
    "<style>*{background:url(http://127.0.0.1/x)}</style>", "<link rel=stylesheet href=http://127.0.0.1/x>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1/'>", "&lt;b&gt;", "]]><b>", "\u202egnp.exe", "\u2066x",
)  # fmt: skip


class Page(HTMLParser):
    """The elements, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.hidden = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.hidden:
            self.texts.append(data)


def make_run(folder: Path, *, epochs: int = 4, text: str = "") -> Path:
    """The folder of a run that stopped, with a log of 40 steps. `text` is put into everything that a user can name."""
    folder.mkdir()
    recipe = recipes.named("demo").but("tiny", {"optim.epochs": epochs})
    (folder / "recipe.json").write_text(recipe.to_json())
    records = [
        {"step": step, "epoch": step / 10, "loss": 8 + 1 / step, "pretext_top1": step / 100, "lr": 0.03,
         "images_per_second": 100.0 + step}
        for step in range(1, 41)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    start = {"step": 0, "versions": {"torch": "2.14"}, "images": 640, "skipped": {f".heic{text}": 3}}
    (folder / "provenance.json").write_text(json.dumps([start | {"command": ["moco", "pretrain", f"photos{text}"]}]))
    (folder / "train.log").write_text(f"2026-01-01T00:00:00+00:00 stopped: DataError: {text or 'a disk'}\n")
    (folder / "bad_images.csv").write_text('"name","reason"\n' + f'"{text.replace(chr(34), chr(34) * 2)}a.jpg","cut"\n')
    return folder


def test_every_number_of_the_page_is_in_its_json_file(tmp_path):
    run = make_run(tmp_path / "run")
    moco.write_report(run)
    shown = {number for text in Page((run / "report.html").read_text()).texts for number in NUMBER.findall(text)}
    assert len(shown) > 30
    assert shown <= set(NUMBER.findall((run / "report.json").read_text()))


def test_a_page_loads_nothing_and_allows_only_its_own_style_and_script(tmp_path):
    run = make_run(tmp_path / "run")
    moco.write_report(run)
    text = (run / "report.html").read_text()
    page = Page(text)
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & set(page.tags)
    assert [value for name, value in page.attributes if name in ("src", "href", "style") or name.startswith("on")] == []
    policy = next(v for _, v in page.attributes if "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for part in (re.search(r"<style>(.*?)</style>", text, re.S), re.search(r"<script>(.*?)</script>", text, re.S)):
        assert part is not None
        assert base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode() in policy


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_others_is_text_in_the_page(tmp_path, payload):
    plain, run = make_run(tmp_path / "plain"), make_run(tmp_path / "run", text=payload)
    name = payload.replace("/", "_")
    run = run.rename(tmp_path / name)
    for one in (plain, run):
        moco.write_report(one)
    page, usual = (Page((one / "report.html").read_text()) for one in (run, plain))
    assert page.tags == usual.tags
    assert [one for one, _ in page.attributes] == [one for one, _ in usual.attributes]
    shown = "".join(page.texts)
    expected = payload if payload.isprintable() else ascii(payload[0])[1:-1] + payload[1:]
    assert f"DataError: {expected}" in shown
    assert shown.replace("\n", "").isprintable()


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "run")
    moco.write_report(run)
    before = (run / "report.html").read_bytes(), (run / "report.json").read_bytes()
    moco.write_report(run)
    assert ((run / "report.html").read_bytes(), (run / "report.json").read_bytes()) == before


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


def test_the_reason_of_a_run_that_stopped_is_in_its_report(tmp_path):
    assert moco.write_report(make_run(tmp_path / "run"))["runs"][0]["state"]["text"].endswith("DataError: a disk")


def test_the_command_prints_the_page_and_refuses_what_is_no_run(tmp_path):
    run = make_run(tmp_path / "run")
    assert CliRunner().invoke(app, ["report", str(run)]).stdout.strip() == str(run / "report.html")
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2


def test_an_axis_has_round_ticks_that_enclose_its_values():
    made = axis([0.3, 7.9])
    assert (made["low"], made["high"]) == (0, 8)
    assert [tick["text"] for tick in made["ticks"]] == ["0", "2", "4", "6", "8"]
    assert axis([5.0, 5.0])["low"] < 5 < axis([5.0, 5.0])["high"]


def test_a_long_curve_becomes_means_and_keeps_its_last_point():
    points = [(float(i), 2.0 * i) for i in range(1001)]
    found = averaged(points)
    assert len(found) <= 240
    assert found[-1] == points[-1]
    assert all(y == pytest.approx(2 * x) for x, y in found)


@pytest.mark.parametrize(
    ("value", "text"), [(8.3181, "8.318"), (62.5, "62.5"), (0.0, "0"), (12000.0, "12,000"), (1.3e-7, "1.3e-07")]
)
def test_a_number_is_written_with_about_four_digits(value, text):
    assert text_of(value) == text
