"""docs/ablations.md is what was measured."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from moco.ablate.families import FAMILIES, family
from moco.ablate.results import AblationResult

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_ablations", DOCS / "make_ablations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(script) -> dict[str, AblationResult]:
    return script.read()


def test_the_page_of_ablations_is_what_its_script_writes(script, results):
    assert script.page(results) == (DOCS / "ablations.md").read_text()


def test_every_ablation_is_on_the_page_with_its_picture(script):
    page = (DOCS / "ablations.md").read_text()
    for name in FAMILIES:
        assert f"](images/{script.picture(name)})" in page
        assert (DOCS / "images" / script.picture(name)).is_file()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_recipe_of_an_ablation_was_run(results, name):
    cells = [(cell.series, cell.label) for cell in family(name, scale="demo").cells]
    assert [(row.series, row.label) for row in results[name].rows] == cells
    seeds = 3 if name in ("mechanism", "momentum", "shufflebn") else 1
    assert {len(row.runs) for row in results[name].rows} == {seeds}


def test_no_run_took_more_than_90_seconds(script, results):
    for run in script.runs_of(results).values():
        assert sum(run["cpu_seconds"].values()) <= 90


def test_a_run_has_the_name_of_its_recipe(results):
    from moco.ablate.run import run_name

    for name, result in results.items():
        described = family(name, scale="demo")
        for row, cell in zip(result.rows, described.cells, strict=True):
            expected = [run_name(described.recipe(cell, seed=seed)) for seed in range(len(row.runs))]
            assert [run["run"] for run in row.runs] == expected
