"""The rows of the paper's tables: each is a recipe of `moco transfer`, with the numbers that the paper prints."""

import json

import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.recipes import RECIPES
from moco.recipes.transfer_rows import ROWS
from moco.transfer.task_registry import TASKS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_can_be_made_and_is_complete(row):
    task = TASKS[row.task]
    assert task.paper_recipe(row.arch or task.arch, row.schedule).task == row.task
    scores = [one for one in (row.random, row.supervised, row.moco) if one is not None]
    assert all(len(one) == len(row.measures) and all(0 < x < 100 for x in one) for one in scores)
    for one in scores:  # an AP50 is above its AP, and that of 0.75 below the one of 0.5
        named = dict(zip(row.measures, one, strict=True))
        assert named.get("AP50", 100) > max(named.get("AP", 0), named.get("AP75", 0))


def test_names_are_those_of_no_recipe():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert not {*names, "transfer"} & {*RECIPES}


def test_explain_prints_a_row_and_lists_all():
    listed = CliRunner().invoke(app, ["explain", "transfer"])
    assert listed.exit_code == 0, listed.output
    assert all(row.name in listed.output for row in ROWS)
    one = CliRunner().invoke(app, ["explain", "voc-c4-24k"])
    assert "moco transfer detect --arch c4 --schedule 24k" in one.output
    assert "81.5" in one.output
    found = json.loads(CliRunner().invoke(app, ["explain", "lvis-1x", "--json"]).output)
    assert found["moco"] == [24.1, 37.4, 25.5]
