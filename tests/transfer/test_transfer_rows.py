"""The rows of the paper's tables: each is a recipe of `moco transfer`, with the numbers that the paper prints."""

import json

import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.recipes import RECIPES
from moco.recipes.transfer_rows import TRANSFER_ROWS
from moco.transfer.explain_row import ExplainedRow, explain_row
from moco.transfer.task_registry import TASKS


@pytest.mark.parametrize("row", TRANSFER_ROWS, ids=lambda row: row.name)
def test_a_row_can_be_made_and_is_complete(row):
    task = TASKS[row.task]
    assert task.paper_recipe(row.arch or task.arch, row.schedule).task == row.task
    scores = [one for one in (row.random, row.supervised, row.moco) if one is not None]
    assert all(len(one) == len(row.measures) and all(0 < x < 100 for x in one) for one in scores)
    for one in scores:  # an AP50 is above its AP, and that of 0.75 below the one of 0.5
        named = dict(zip(row.measures, one, strict=True))
        assert named.get("AP50", 100) > max(named.get("AP", 0), named.get("AP75", 0))


def test_names_are_those_of_no_recipe():
    names = [row.name for row in TRANSFER_ROWS]
    assert len(set(names)) == len(names)
    assert not {*names, "transfer"} & {*RECIPES}


def test_explain_prints_a_row_and_lists_all():
    listed = CliRunner().invoke(app, ["explain", "transfer"])
    assert listed.exit_code == 0, listed.output
    assert all(row.name in listed.output for row in TRANSFER_ROWS)
    one = CliRunner().invoke(app, ["explain", "voc-c4-24k"])
    assert "moco transfer detect --arch c4 --schedule 24k" in one.output
    assert "81.5" in one.output
    found = json.loads(CliRunner().invoke(app, ["explain", "lvis-1x", "--json"]).output)
    assert found["moco"] == [24.1, 37.4, 25.5]


@pytest.mark.parametrize("row", TRANSFER_ROWS, ids=lambda row: row.name)
def test_each_setting_of_a_row_has_its_value_and_a_source(row):
    explained = explain_row(row.name)
    assert isinstance(explained, ExplainedRow)
    found = {one.name: one for one in explained.settings}
    assert all(one.source for one in found.values())
    task = TASKS[row.task]
    recipe = task.paper_recipe(row.arch or task.arch, row.schedule)
    optim = {f"optim.{name}" for name in recipe.optim.model_dump()}
    assert {*optim, "bn", "precise_bn", "encoder.name"} <= found.keys()
    assert found["optim.lr"].value == f"{recipe.optim.lr:g}"
    assert max(map(len, str(explained).splitlines())) <= 88  # rows with six scores


def test_the_widths_of_a_row_are_those_of_the_detector_that_is_built():
    found = {one.name: one for one in explain_row("lvis-1x").settings}
    assert (found["detector.mask_channels"].value, found["detector.proposals"].value) == ("256", "1000, 1000")
    assert (found["repeat"].value, "repeat factor sampling" in found["repeat"].source) == ("0.001", True)
    assert "repeat" not in {one.name for one in explain_row("coco-fpn-1x").settings}
    c4 = {one.name: one.value for one in explain_row("voc-c4-24k").settings}
    assert c4["detector.proposals"] == "2000, 1000"
    assert "detector.fc_channels" not in c4
    assert c4["optim.warmup"] == "100"
