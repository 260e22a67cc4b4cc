"""The ablations as data: what they cover, and that their recipes are the papers'."""

import pytest

from moco import recipes
from moco.ablate.families import FAMILIES, family
from moco.ablate.scales import ABLATION_SCALES
from moco.recipe import Recipe, RecipeError
from moco.schedule import Constant, Cosine, Steps

NAMES = (
    "mechanism", "momentum", "queue", "shufflebn", "temperature", "head", "width", "v2", "v3-patch", "v3-predictor",
    "v3-position", "v3-heads", "v3-batch",
)  # fmt: skip


def settings(recipe: Recipe) -> dict[str, object]:
    """All but the name and the source."""
    return {name: value for name, value in recipe.fields().items() if name not in ("name", "source")}


def cell(name: str, label: str, series: str = "", scale: str = "imagenet") -> Recipe:
    """One recipe of a family."""
    described = family(name, scale=scale)
    (found,) = (one for one in described.cells if (one.series, one.label) == (series, label))
    return described.recipe(found)


def test_every_ablation_that_is_promised_is_there():
    assert set(FAMILIES) == set(NAMES)


@pytest.mark.parametrize("scale", ABLATION_SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_an_ablation_is_one_that_can_run_and_differs_from_the_others(name, scale):
    described = family(name, scale=scale)
    made = [described.recipe(one) for one in described.cells]
    assert len(made) >= 2
    assert len({str(settings(recipe)) for recipe in made}) == len(made)
    assert len({one.name for one in described.cells}) == len(made)


@pytest.mark.parametrize("name", NAMES)
def test_at_the_scale_of_imagenet_every_published_number_has_its_recipe(name):
    described = family(name, scale="imagenet")
    assert set(described.paper) <= {(one.series, one.label) for one in described.cells}


@pytest.mark.parametrize(
    ("name", "label", "series", "recipe"),
    [
        ("v2", "baseline", "", "moco_v1_r50"),
        ("v2", "MLP, aug+, cos", "", "moco_v2_r50"),
        ("v2", "and 800 epochs", "", "moco_v2_r50_800"),
        ("mechanism", "65536", "MoCo", "moco_v1_r50"),
        ("mechanism", "65536", "memory bank", "memory_bank_infonce"),
        ("mechanism", "4096", "memory bank, NCE", "memory_bank_nce"),
        ("temperature", "0.07", "linear head", "moco_v1_r50"),
        ("shufflebn", "8 groups, shuffled", "", "moco_v1_r50"),
        ("width", "1", "", "moco_v1_r50"),
        ("v3-position", "sin-cos, fixed", "", "moco_v3_vit_base"),
        ("v3-predictor", "with predictor", "", "moco_v3_vit_base"),
        ("v3-heads", "with BN", "", "moco_v3_vit_base"),
    ],
)
def test_a_cell_of_a_paper_is_the_recipe_of_that_name(name, label, series, recipe):
    assert settings(cell(name, label, series)) == settings(recipes.named(recipe))


@pytest.mark.parametrize("batch", [256, 512, 1024])
def test_end_to_end_is_the_recipe_of_its_mini_batch(batch):
    ours, named = cell("mechanism", str(batch), "end-to-end"), recipes.named(f"end_to_end_{batch}")
    assert settings(ours) == settings(named)


@pytest.mark.parametrize("scale", ABLATION_SCALES)
def test_all_mechanisms_see_each_image_equally_often(scale):
    described = family("mechanism", scale=scale)
    assert {described.recipe(one).optim.epochs for one in described.cells} == {described.base.optim.epochs}


@pytest.mark.parametrize("scale", ABLATION_SCALES)
def test_the_learning_rate_of_end_to_end_grows_with_its_mini_batch(scale):
    described = family("mechanism", scale=scale)
    made = [described.recipe(one) for one in described.cells if one.series == "end-to-end"]
    assert len(made) == 3
    each = [recipe.optim.lr(0.0, 1.0) / recipe.optim.batch_size for recipe in made]
    assert each == pytest.approx([described.base.optim.lr(0.0, 1.0) / described.base.optim.batch_size] * 3)


@pytest.mark.parametrize("scale", ABLATION_SCALES)
def test_the_momenta_are_compared_with_4096_keys_as_in_the_paper(scale):
    described = family("momentum", scale=scale)
    made = [described.recipe(one) for one in described.cells]
    assert {recipe.method.size for recipe in made} == {4096}
    assert [recipe.method.momentum for recipe in made] == [Constant(m) for m in (0.0, 0.9, 0.99, 0.999, 0.9999)]


def test_the_x_axis_of_the_momenta_is_the_number_of_steps_averaged_over():
    described = family("momentum", scale="demo")
    assert described.place is not None
    assert [described.place(m) for m in ("0", "0.9", "0.99", "0.999", "0.9999")] == [1, 10, 100, 1000, 10000]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.03), Constant(0.12)),
        (Steps(0.03, at=(120, 160)), Steps(0.12, at=(120, 160))),
        (Cosine(0.03, warmup=2), Cosine(0.12, warmup=2)),
    ],
)
def test_the_linear_rule_multiplies_the_learning_rate_and_nothing_else(schedule, expected):
    assert schedule.scaled(4) == expected


@pytest.mark.parametrize(
    ("name", "scale", "near"), [("momentun", "demo", "momentum"), ("queue", "imagnet", "imagenet")]
)
def test_an_unknown_ablation_or_scale_is_refused_with_the_nearest(name, scale, near):
    with pytest.raises(RecipeError, match=near):
        family(name, scale=scale)
