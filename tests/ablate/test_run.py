"""Running an ablation: what is run, what is not run again, and what is kept."""

import dataclasses
import json

import pytest

from moco.ablate import families, run
from moco.ablate.families import Cell
from moco.ablate.results import AblationResult
from moco.ablate.run import ablate, recipe_facts, run_name
from moco.recipe import RecipeError
from moco.train.after_step import Stopped
from moco.train.pretrain import pretrain


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Measures have tests of their own."""
    monkeypatch.setattr(run, "measures", lambda *_, **__: {"lag": 0.5})


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The names of the run folders in which `pretrain` was called."""
    names: list[str] = []

    def noted(images, out, **rest):
        names.append(out.name)
        return pretrain(images, out, **rest)

    monkeypatch.setattr(run, "pretrain", noted)
    return names


def stable(result: AblationResult) -> dict[str, object]:
    """A result without its times."""
    tree = json.loads(json.dumps(result.to_dict()))
    for row in tree["rows"]:
        for one in row["runs"]:
            one.pop("cpu_seconds", None)
    return tree


def test_every_recipe_is_run_with_every_seed(tiny_family, places, made):
    result = ablate("tiny", seeds=(0, 1), **places)
    assert len(set(made)) == 4
    assert [[one["seed"] for one in row.runs] for row in result.rows] == [[0, 1], [0, 1]]


def test_finished_runs_are_not_repeated(tiny_family, places, made):
    first = ablate("tiny", **places)
    made.clear()
    assert ablate("tiny", **places).to_dict() == first.to_dict()
    assert made == []


def test_with_one_more_seed_only_its_runs_are_made(tiny_family, places, made):
    ablate("tiny", **places)
    made.clear()
    assert ablate("tiny", seeds=(0, 1), **places).seeds == 2
    assert len(made) == 2


def test_a_stopped_ablation_resumes_with_the_same_results(tiny_family, places, made, monkeypatch, tmp_path):
    undisturbed = ablate("tiny", **places)

    def stops(images, out, **rest):
        if len(made) == 2:
            raise Stopped("stopped by SIGTERM")
        made.append(out.name)
        return pretrain(images, out, **rest)

    again = places | {"out": tmp_path / "again"}
    made[:] = made[:1]  # one was made before
    with monkeypatch.context() as patch:
        patch.setattr(run, "pretrain", stops)
        with pytest.raises(Stopped):
            ablate("tiny", **again)
    kept = json.loads((tmp_path / "again/tiny/tiny.json").read_text())
    assert [len(row["runs"]) for row in kept["rows"]] == [1, 0]
    made.clear()
    assert stable(ablate("tiny", **again)) == stable(undisturbed)
    assert len(made) == 1


def test_a_recipe_that_two_ablations_have_in_common_is_run_once(tiny_family, places, made, monkeypatch):
    other = Cell("plain", {"method.bn": "plain"})
    both = families.Family(
        "other", "Other", tiny_family.base, (tiny_family.cells[1], other), "", {}, "another paper", place=None
    )
    monkeypatch.setitem(families.FAMILIES, "other", lambda _: both)
    ablate("tiny", **places)
    made.clear()
    ablate("other", **places)
    assert made == [run_name(both.recipe(other))]


def test_a_run_that_diverges_is_a_result(tiny_family, places, monkeypatch):
    wild = tiny_family.cells[0].changes | {"optim.lr": 1e30}
    both = dataclasses.replace(tiny_family, cells=(Cell("0.5", wild), tiny_family.cells[1]))
    monkeypatch.setitem(families.FAMILIES, "tiny", lambda _: both)
    result = ablate("tiny", **places)
    assert [row.failed for row in result.rows] == [1, 0]
    assert "learning rate" in result.rows[0].runs[0]["failed"]
    assert result.rows[0].scores("kNN-3") == []


def test_a_result_reads_back_as_it_was(tiny_family, places):
    result = ablate("tiny", **places)
    assert AblationResult.from_dict(json.loads((places["out"] / "tiny/tiny.json").read_text())) == result


def test_the_papers_number_stands_beside_its_recipe(tiny_family, places):
    assert [row.paper for row in ablate("tiny", **places).rows] == [None, 55.2]


def test_the_baselines_are_raw_pixels_once_and_three_random_encoders(tiny_family, places):
    baselines = ablate("tiny", **places).baselines
    assert {name: len(scores["kNN-3"]) for name, scores in baselines.items()} == {"raw pixels": 1, "random encoder": 3}


def test_results_of_other_images_are_not_mixed_in(tiny_family, places, tmp_path):
    ablate("tiny", **places)
    with pytest.raises(RecipeError, match="give another --out"):
        ablate("tiny", **places | {"data": tmp_path / "others"})


@pytest.mark.parametrize(("scale", "data"), [("demo", "images"), ("cifar", None)])
def test_images_are_expected_at_every_scale_but_demo_which_has_its_own(tmp_path, scale, data):
    with pytest.raises(RecipeError, match="--eval-data"):
        ablate("head", scale=scale, data=data, out=tmp_path)


def test_a_run_is_known_by_its_settings_and_not_by_its_name(tiny):
    assert run_name(tiny.but("another", source="elsewhere")) == run_name(tiny)
    assert (
        len({run_name(tiny), run_name(tiny.but(None, {"seed": 1})), run_name(tiny.but(None, {"method.momentum": 0.5}))})
        == 3
    )


def test_a_run_keeps_its_name_when_a_setting_is_added_to_all_recipes(tiny, monkeypatch):
    name, fields = run_name(tiny), type(tiny).fields
    monkeypatch.setattr(type(tiny), "fields", lambda recipe: fields(recipe) | {"method.novelty": False})
    assert run_name(tiny) == name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method.momentum": 0.99}, {"steps": 10, "memory": 100, "age": 2.5}),
        ({"method.momentum": 0.99, "method.symmetric": True}, {"steps": 10, "memory": 100, "age": 1.25}),
        (
            {"method.dictionary": "batch", "method.key_encoder": "shared", "method.size": None, "optim.epochs": 3},
            {"steps": 15},
        ),
    ],
)
def test_the_facts_of_a_recipe_follow_from_its_numbers(tiny, changes, expected):
    assert recipe_facts(tiny.but(None, changes), 40) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tiny.json", "tiny.md", "tiny.png", "data.json"])
def test_a_file_that_no_ablation_has_written_is_not_replaced(tiny_family, places, made, name):
    folder = places["out"] / "tiny" if "out" in places else None
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(RecipeError):
        ablate("tiny", **places)
    assert (folder / name).read_text() == "mine"
    assert made == []
