"""What an ablation would cost, and the command."""

import json

import pytest
from torchvision.models import ResNet50_Weights
from typer.testing import CliRunner

from moco import recipes
from moco.ablate.cost import flops, list_costs
from moco.cli import app


def moco(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_cost_of_a_resnet_50_is_that_of_torchvisions_count():
    multiply_adds = 1e9 * ResNet50_Weights.IMAGENET1K_V1.meta["_ops"]
    four_passes = 4 * 2 * multiply_adds * 1000 * 200  # forward of query and key, backward of the query
    assert flops(recipes.named("moco_v1_r50"), 1000) == pytest.approx(four_passes, rel=0.01)


@pytest.mark.parametrize(("recipe", "passes"), [("end_to_end_256", 6), ("memory_bank_infonce", 3), ("moco_v2_r50", 4)])
def test_a_mechanism_costs_its_passes(recipe, passes):
    base = recipes.named("moco_v1_r50")
    assert flops(recipes.named(recipe), 10) / flops(base, 10) == pytest.approx(passes / 4, rel=0.01)


def test_a_symmetric_loss_costs_twice_as_much(tiny):
    assert flops(tiny.but(None, {"method.symmetric": True}), 10) == pytest.approx(2 * flops(tiny, 10))


def test_the_listing_has_every_recipe_with_what_it_differs_in():
    text = list_costs("momentum", scale="demo", seeds=3)
    assert "5 recipes, 3 seeds each" in text
    assert "method.momentum.value: 0.99 -> 0.9999" in text
    assert "the base recipe, unchanged" in text


def test_a_dry_run_lists_the_recipes_and_makes_nothing(tmp_path):
    result = moco("ablate", "v2", "--scale", "imagenet", "--dry-run", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "MLP, aug+, cos: 1,000,800 steps" in result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["momentun"], "did you mean momentum"),
        (["queue", "--scale", "cifra"], "did you mean cifar"),
        (["queue", "--scale", "cifar"], "--eval-data"),
        (["queue", "--seeds", "0;1"], "--seeds"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_was_expected(tmp_path, arguments, said):
    result = moco("ablate", *arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_command_prints_the_table_and_keeps_results_table_and_picture(tiny_family, places):
    options = ["--scale", "tiny", "--data", places["data"], "--eval-data", places["eval_data"], "--out", places["out"]]
    result = moco("ablate", "tiny", *options)
    assert result.exit_code == 0, result.stderr
    assert "raw pixels" in result.stdout
    assert sorted(path.name for path in (places["out"] / "tiny").glob("tiny.*")) == ["tiny.json", "tiny.md", "tiny.png"]
    assert moco("ablate", "tiny", *options, "--markdown").stdout == (places["out"] / "tiny/tiny.md").read_text() + "\n"
    assert json.loads(moco("ablate", "tiny", *options, "--json").stdout)["ablation"] == "tiny"
