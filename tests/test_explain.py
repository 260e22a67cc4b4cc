"""`moco explain`: each number with its source, what was changed, and what to expect."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moco import recipes
from moco.cli import app
from moco.explain import Explanation, Setting, explain, explain_recipe, list_recipes
from moco.recipe import RecipeError
from moco.recipes.auto import FITTED
from moco.recipes.sources_of_numbers import value_text
from moco.schedule import Constant, Cosine, Decay, Steps
from moco.train.pretrain import pretrain


def setting(found: Explanation, name: str) -> Setting:
    return next(one for one in found.settings if one.name == name)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_explained_with_a_source_for_each_line(name: str):
    found = explain(name)
    assert len(found.settings) > 30
    assert all(one.source not in ("", "no source") for one in found.settings)
    assert not any(one.changed for one in found.settings)


def test_every_setting_is_explained_once_or_said_to_be_without_effect():
    for name in recipes.RECIPES:
        found = explain(name)
        told = [one.name for one in found.settings]
        assert len(told) == len(set(told))
        for field in found.recipe.fields():
            views = field.replace("views.0", "views.*").replace("views.1", "views.*")
            schedule = ".".join(field.split(".")[:2])
            there = {field, views, schedule, field[: len("data.views.1")]} & {*told, *found.idle}
            assert there or field in ("name", "source"), (name, field)


def test_a_derived_recipe_has_the_sources_of_its_base_but_for_what_it_changes():
    v1, v2 = explain("moco_v1_r50"), explain("moco_v2_r50")
    assert setting(v2, "optim.weight_decay").source == setting(v1, "optim.weight_decay").source
    assert "arXiv:2003.04297" in setting(v2, "method.temperature").source
    assert "arXiv:1911.05722" in setting(v1, "method.temperature").source


def test_a_deviation_is_shown_only_if_its_setting_is_unchanged():
    assert "method.bn_groups" in explain("moco_v2_r50").deviations
    assert "method.bn_groups" not in explain("moco_v3_r50_100").deviations
    assert "second" in explain("end_to_end_256").deviations["method.key_encoder"]


def test_a_changed_setting_shows_its_former_value():
    recipe = recipes.named("moco_v2_r50").but(None, {"optim.epochs": 20, "method.bn": "plain"})
    found = explain_recipe(recipe)
    assert setting(found, "optim.epochs") == Setting("optim.epochs", "20", "changed here: 200 -> 20", changed="200")
    assert [one.name for one in found.settings if one.changed] == ["method.bn", "optim.epochs"]
    assert "method.bn_groups" in found.idle
    assert "2 settings changed here" in str(found)


def test_a_change_that_makes_a_setting_count_has_its_source():
    found = explain_recipe(recipes.named("moco_v1_r50").but(None, {"data.views.0.blur": 0.5}))
    assert setting(found, "data.views.0.blur").changed == "0"
    assert "data.views.0.blur_sigma" in [one.name for one in found.settings]
    assert "data.views.1.blur_sigma" in found.idle


def test_a_recipe_file_is_explained_like_its_name(tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_text(recipes.named("moco_v3_vit_small").to_json())
    assert explain(str(file)) == explain("moco_v3_vit_small")


def test_a_run_folder_is_explained_with_what_was_changed_for_it(tmp_path: Path, pictures: Path, tiny):
    base = tiny.but("demo", {"optim.epochs": 0.4})
    run = pretrain(pictures, tmp_path / "run", recipe=base, workers=0, device="cpu")
    found = explain(str(tmp_path / "run"))
    changed = {one.name: (one.changed, one.value) for one in found.settings if one.changed}
    assert changed["optim.epochs"] == ("40", "0.4")
    assert changed["encoder.dim"] == ("128", "8")
    assert "compute.threads" not in changed
    assert (run.path / "checkpoints" / "step_00000002.pt").is_file()  # 0.4 of the 5 steps of an epoch


def test_an_automatic_recipe_says_what_was_fitted_and_what_was_changed():
    recipe = recipes.auto(5_000, side=32, accelerated=False).but(None, {"encoder.dim": 64})
    found = explain_recipe(recipe)
    assert "first guess" in setting(found, "method.size").source
    assert "notebook" in setting(found, "optim.weight_decay").source
    assert [one.name for one in found.settings if one.changed] == ["encoder.dim"]


def test_auto_is_listed_and_explained_by_its_rules():
    found = explain("auto")
    for name in FITTED:
        assert (
            setting(found, name.replace("views.", "views.*.")).source == f"this project's first guess: {FITTED[name]}"
        )
    assert "10,000 images" in str(found)
    assert "moco explain RUN" in str(found)
    assert list_recipes()[0]["name"] == "auto"


def test_a_recipe_of_the_user_is_named_as_such():
    found = explain_recipe(recipes.named("moco_v1_r50").but("mine", source="my notes"))
    assert {one.source for one in found.settings} == {"not among the recipes here: my notes"}
    assert found.published == ()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("moco_v2_r5", "did you mean moco_v2_r50"),
        ("nowhere.json", "there is no file nowhere.json"),
        (".", "there is no file recipe.json"),
    ],
)
def test_an_unknown_recipe_or_missing_file_cannot_be_explained(
    what: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as error:
        explain(what)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Constant(0.999), "0.999"),
        (Steps(0.03, at=(120, 160)), "0.03, x 0.1 at epochs 120, 160"),
        (Decay(0.12, every=0.5), "0.12, x 0.9 every 0.5 epochs"),
        (Cosine(0.03, whole_epochs=True), "0.03 to 0, cosine by epoch"),
        (Cosine(9.6, warmup=10), "9.6 to 0, cosine by step, warm-up 10 epochs"),
        (Cosine(0.06, whole_epochs=True, first=1), "0.06 to 0, cosine by epoch, epochs from 1"),
    ],
)
def test_a_schedule_is_described_in_words(schedule: object, text: str):
    assert value_text(schedule) == text


@pytest.mark.parametrize(
    ("name", "what", "text"),
    [
        ("moco_v1_r50", "dictionary", "32 MiB"),  # 65536 x 128 x 4 bytes
        ("moco_v1_r50", "loss at chance", "11.09"),  # ln 65537
        ("moco_v1_r50", "a key's age, at most", "256 steps"),  # 65536 / 256
        ("moco_cifar_symmetric", "a key's age, at most", "4 steps"),  # 4096 / 1024
        ("moco_v1_r50", "f_k looks back", "1,000 steps"),  # 1 / 0.001
        ("memory_bank_nce", "dictionary", "626 MiB"),  # 1,281,167 x 128 x 4 bytes
        ("end_to_end_1024", "contrastive accuracy at chance", "0.098 % (1 of 1,024 keys)"),
        ("moco_v3_r50_100", "loss at chance", "33.27"),  # 4 ln 4096
        ("moco_v3_r50_1000", "f_k looks back", "250 steps"),  # 1 / 0.004
    ],
)
def test_what_to_expect_of_a_run_follows_from_the_numbers(name: str, what: str, text: str):
    assert text in explain(name).sanity[what]


def test_the_command_prints_the_same_as_text_and_as_json():
    text = CliRunner().invoke(app, ["explain", "moco_v3_r50_300"])
    assert text.exit_code == 0
    assert "72.8" in text.stdout
    assert "optim.trust" in text.stdout
    found = json.loads(CliRunner().invoke(app, ["explain", "moco_v3_r50_300", "--json"]).stdout)
    assert found["recipe"] == json.loads(recipes.named("moco_v3_r50_300").to_json())
    assert found["published"][0] == {
        "measure": "ImageNet, linear, top-1", "value": 72.8, "source": "facebookresearch/moco-v3 CONFIG.md",
    }  # fmt: skip
    assert {one["name"] for one in found["settings"]} == {one.name for one in explain("moco_v3_r50_300").settings}


def test_the_list_has_every_recipe():
    text = CliRunner().invoke(app, ["recipes"]).stdout
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == ["auto", *recipes.RECIPES]
    rows = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    assert [row["name"] for row in rows] == ["auto", *recipes.RECIPES]
    assert all(row["what"] for row in rows)


def test_an_unknown_recipe_ends_the_command_with_two():
    assert CliRunner().invoke(app, ["explain", "moco_v9"]).exit_code == 2


def test_explaining_needs_no_torch():
    probe = (
        "import sys; from moco.explain import explain; str(explain('moco_v3_vit_base')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_each_setting_is_one_word_that_can_be_copied_and_a_shared_source_is_printed_once():
    text = str(explain("moco_v2_r50"))
    shown = [line.split()[0] for line in text.split("\n\n")[1].splitlines() if line[2] != " "]
    assert shown == ["setting", *(one.name for one in explain("moco_v2_r50").settings)]
    assert text.count("--aug-plus: the") == 3  # crop_ratio and solarize in between have other sources
    assert "  data.views.*.jitter.contrast    0.4                  as above\n" in text


@pytest.mark.parametrize("command", [["recipes"], ["explain", "auto"], ["explain", "moco_v2_r50"]])
def test_texts_fit_80_columns(command: list[str]):
    text = CliRunner().invoke(app, command).stdout
    assert max(map(len, text.splitlines())) <= 80
