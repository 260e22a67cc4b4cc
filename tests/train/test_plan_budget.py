"""A run within a time: measured, chosen, trained, resumed."""

import json
import time
from dataclasses import replace

import pytest
import torch
from sample_pictures import make_pictures

from moco import pretrain, recipes
from moco.data.sources.folder import find_images
from moco.planning.choose import ImageCost
from moco.recipe import Recipe, RecipeError
from moco.text import duration
from moco.train import fit_to_time as fitting
from moco.train import plan_budget as planning
from moco.train.measure_step import StepCost
from moco.train.plan import plan
from moco.train.plan_budget import Alternative, fit_epochs, plan_budget
from moco.train.stop_on_signals import Stopped
from tests.train.helpers import Messages, StopAt, assert_same, final_state

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """A machine whose steps have a known cost: 1 ms an image for `tiny`, 4 times as much for each next network."""
    asked: list[Recipe] = []

    def cost(recipe, images, place, *, workers, seconds, model=None) -> StepCost:
        asked.append(recipe)
        scale = {0.25: 1.0 if recipe.encoder.name == "resnet10" else 4.0, 0.5: 16.0, 1.0: 64.0}.get(
            recipe.encoder.width, 1.0
        )
        factor = {"fp32": 1.0, "bf16": 0.5}[recipe.compute.precision] * (1 if recipe.compute.threads == 1 else 0.8)
        return StepCost(0.001 * scale * factor * recipe.optim.batch_size, 0.0, 9, 2**30, 0.0, 2**20)

    monkeypatch.setattr(planning, "measure_step", cost)
    return asked


@pytest.fixture
def many(tmp_path):
    return find_images(make_pictures(tmp_path / "many", 300, side=48))


def test_the_chosen_run_fills_the_budget(machine, many):
    found = plan_budget(many, CPU, workers=1, budget=400)
    one = found.chosen
    assert 0.9 * 400 < one.seconds + found.measured <= 400
    assert one.seconds == pytest.approx(
        planning.OVERHEAD * one.steps * one.recipe.optim.batch_size * one.image.step + planning.CLOSING
    )


def test_the_fastest_precision_is_taken(machine, many):
    assert plan_budget(many, CPU, workers=1, budget=600).chosen.recipe.compute.precision == "bf16"
    precisions = {recipe.compute.precision for recipe in machine}
    assert precisions == {"fp32", "bf16"}


def test_more_time_gives_a_larger_network_or_more_epochs(machine, many):
    scales = list(planning.NETWORK_SIZES)
    runs = [plan_budget(many, CPU, workers=1, budget=budget).chosen for budget in (60, 600, 6000, 60_000)]
    places = [scales.index(one.scale) for one in runs]
    assert places == sorted(places)
    assert places[-1] > places[0]
    assert [one.seconds for one in runs] == sorted(one.seconds for one in runs)


def test_settings_that_are_given_are_kept(machine, many):
    found = plan_budget(many, CPU, workers=1, budget=600, changes={"method.temperature": 0.3, "optim.batch_size": 16})
    assert {one.recipe.method.temperature for one in found.alternatives} == {0.3}
    assert found.chosen.recipe.optim.batch_size == 16


def test_a_budget_that_allows_too_few_steps_is_refused_with_what_is_needed(many):
    cost = StepCost(1.0, 0.0, 9, None, 0.0, 1)
    recipe = recipes.auto(300, side=48, accelerated=False, scale="tiny", epochs=1, batch_size=32)
    one = Alternative("tiny", recipe, cost, ImageCost(1.0), 300)
    needed = duration(100 * 32 * 1.0 * planning.OVERHEAD + planning.CLOSING)
    with pytest.raises(RecipeError, match=f"3 steps of 32 images fit into it.*at least 100, which take about {needed}"):
        fit_epochs(one, 100.0)
    assert fit_epochs(one, 3200.0).steps >= 100


def test_the_longest_schedule_of_the_papers_is_the_limit(many):
    recipe = recipes.auto(300, side=48, accelerated=False, scale="tiny", epochs=1, batch_size=32)
    one = Alternative("tiny", recipe, StepCost(0.001, 0.0, 9, None, 0.0, 1), ImageCost(1e-6), 300)
    found = fit_epochs(one, 1e6)
    assert found.recipe.optim.epochs == 800
    assert found.steps == 800 * (300 // 32)  # an epoch leaves out the images that fill no mini-batch
    assert 1 / (1 - found.recipe.method.momentum(0, 1)) == pytest.approx(found.steps / 20, rel=0.01)


def test_a_recipe_of_the_user_gets_its_number_of_epochs_only(pictures, tiny, tmp_path):
    began = time.monotonic()
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, budget=30)
    took = time.monotonic() - began
    assert run.recipe.but(None, {"optim.epochs": 2}) == replace_threads(tiny, run.recipe)
    assert run.recipe.optim.epochs > 2
    assert took < 60


def replace_threads(recipe: Recipe, like: Recipe) -> Recipe:
    return recipe.but(None, {"compute.threads": like.compute.threads})


def test_a_run_with_a_budget_resumes_with_the_same_command(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "FEWEST_STEPS", 1)
    data, settings = make_pictures(tmp_path / "data", 64, side=24), {"encoder.dim": 8}

    def run(out, reporter=None):
        return pretrain(data, out, budget="30s", settings=settings, reporter=reporter, workers=1)

    slow(monkeypatch)  # the machine says 1 s an image, so that the run has few steps
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", StopAt(2))
    monkeypatch.setattr(planning, "measure_step", None)  # a run that resumes measures nothing
    again = run(tmp_path / "cut")
    assert again.recipe == whole.recipe
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))


def slow(monkeypatch) -> None:
    def cost(recipe, images, place, *, workers, seconds, model=None) -> StepCost:
        return StepCost(5.0, 0.0, 9, None, 0.0, 1)

    monkeypatch.setattr(planning, "measure_step", cost)


def test_auto_without_a_budget_states_its_time_and_shortens_a_run_that_is_too_long(
    machine, many, monkeypatch, tmp_path
):
    boxes: list[tuple[str, str]] = []

    class Boxes(Messages):
        def box(self, title, rows):
            boxes.extend(rows)

    monkeypatch.setattr(planning, "FEWEST_STEPS", 1)
    pretrain(tmp_path / "many", tmp_path / "a", reporter=Boxes(), dry_run=True)
    (said,) = [text for name, text in boxes if name == "time"]
    assert "images a second, measured" in said
    boxes.clear()
    monkeypatch.setitem(fitting.SENSIBLE, "cpu", 60.0)
    run = pretrain(tmp_path / "many", tmp_path / "b", reporter=Boxes(), dry_run=True)
    (said,) = [text for name, text in boxes if name == "time"]
    assert "is long for this machine, so it was fitted to 1 min" in said
    each = 0.001 * (0.5 if run.recipe.compute.precision == "bf16" else 1)  # [s] an image, of the smallest network
    assert run.recipe.optim.total_steps(300) * run.recipe.optim.batch_size * each < 60


def test_epochs_and_a_budget_together_are_refused(pictures, tmp_path):
    with pytest.raises(RecipeError, match="give either --budget or --epochs"):
        pretrain(pictures, tmp_path / "run", epochs=3, budget="10m")
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_is_refused_before_anything_is_measured(machine, pictures, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError):
        pretrain(pictures, tmp_path / "run", recipe="moco_v2_r50", budget="10m")  # 256 images in a mini-batch, of 40
    assert machine == []


def test_the_plan_gives_each_run_as_a_command_that_gives_its_recipe(machine, many, tmp_path):
    found = plan(tmp_path / "many", budget="10m", out=str(tmp_path / "run"), device="cpu", workers=1)
    facts = json.loads(json.dumps(found.to_dict()))
    assert facts["recommended"] == found.found.chosen.scale
    assert len(facts["alternatives"]) > 1
    for one, described in zip(found.found.alternatives, facts["alternatives"], strict=True):
        words = described["command"].split()
        assert words[:2] == ["moco", "pretrain"]
        assert recipe_of(words, tmp_path) == one.recipe


def recipe_of(words: list[str], tmp_path) -> Recipe:
    """The recipe of a run that is started with the words of a command."""
    options = dict(zip(words[3::2], words[4::2], strict=True)) if words.count("--set") < 2 else {}
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    options = {words[place]: words[place + 1] for place in range(3, len(words), 2) if words[place] != "--set"}
    return pretrain(
        words[2], options["--out"], recipe=options["--recipe"], epochs=float(options["--epochs"]), dry_run=True,
        batch_size=int(options["--batch-size"]), precision=options.get("--precision"),
        settings=recipes.parse_settings(settings),
    ).recipe  # fmt: skip


def test_the_text_of_a_plan_has_the_numbers_of_its_dict(machine, many, tmp_path):
    found = plan(tmp_path / "many", budget="10m", device="cpu", workers=1)
    text = str(found)
    for one in found.to_dict()["alternatives"]:
        assert f"{one['epochs']:,g}" in text
        assert one["command"] in text
    assert max(len(line) for line in text.split("\n\n")[1].splitlines()) <= 100
    assert all(len(line) <= 80 or "moco pretrain" in line for line in text.splitlines())


def test_only_a_run_of_the_most_epochs_is_said_to_end_before_the_budget(machine, many, tmp_path):
    for budget, longest in (("60s", False), ("8h", True)):
        found = plan(tmp_path / "many", budget=budget, device="cpu", workers=1)
        most = found.found.chosen.recipe.optim.epochs
        assert most == 800 if longest else most < 800
        slow = replace(found, found=replace(found.found, budget=2 * found.found.budget))  # half was for measuring
        assert any("longest schedule" in note for note in slow.notes) is longest


def test_weights_on_the_machine_are_named_with_a_command_that_measures_them(machine, many, tmp_path):
    found = replace(plan(tmp_path / "many", budget="2m", device="cpu", workers=1), start="timm/resnet18")
    command = f"moco pretrain {tmp_path / 'many'} --out runs/new --model timm/resnet18 --init timm/resnet18 --budget 2m"
    assert found.notes[-1].endswith(command)
    assert f"  {command}" in str(found).splitlines()
    assert "was not measured" in found.notes[-1]


def test_fitting_changes_length_and_momentum_only():
    recipe = recipes.auto(300, side=48, accelerated=False, scale="tiny", epochs=1, batch_size=32)
    one = Alternative("tiny", recipe, StepCost(1.0, 0.0, 9, None, 0.0, 1), ImageCost(0.01), 300)
    found = fit_epochs(replace(one), 320.0).recipe
    assert found.but(None, {"optim.epochs": 1, "method.momentum": recipe.method.momentum}) == recipe


def test_large_photographs_get_the_command_that_makes_smaller_copies(many, tmp_path, monkeypatch):
    def cost(recipe, images, place, *, workers, seconds, model=None) -> StepCost:
        return StepCost(0.1, 0.9, 9, 2**30, 0.0, 2**20)  # nine tenths of a step are waiting

    monkeypatch.setattr(planning, "measure_step", cost)
    found = plan(tmp_path / "many", budget="10m", device="cpu", workers=1)
    assert not any("moco pack" in note for note in found.notes)  # the images are small
    large = replace(found.found.facts, pixels=12e6, read=0.05)
    notes = replace(found, found=replace(found.found, facts=large)).notes
    size = 2 * found.found.chosen.recipe.data.size
    assert any(note.endswith(f"moco pack {tmp_path / 'many'} --to shards/ --resize {size}") for note in notes)
    assert any("50 ms for one of 12 megapixels" in note for note in notes)


def test_a_folder_that_cannot_be_written_is_refused_before_measuring(machine, many, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="run"):
        pretrain(tmp_path / "many", tmp_path / "run", device="cpu", workers=0, budget="10m")
    assert machine == []
