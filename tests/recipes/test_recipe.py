"""Recipes are frozen, checked, derived by `but`, and survive JSON."""

import re

import pytest
from pydantic import ValidationError

from moco import recipes
from moco.recipe import Recipe, RecipeError, diff
from moco.schedule import Constant


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_survives_json(name):
    recipe = recipes.named(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.name == name
    assert recipe.source


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        recipes.named("demo").optim.epochs = 3


def test_but_changes_only_the_given_settings():
    base = recipes.named("moco_v2_r50")
    changed = base.but("short", {"optim.epochs": 20, "data.views.1.grey": 0.5})
    assert diff(base, changed) == [
        "name: moco_v2_r50 -> short", "optim.epochs: 200 -> 20", "data.views.1.grey: 0.2 -> 0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.epoch=3", "did you mean optim.epochs"),
        ("epochs=3", "did you mean optim.epochs"),
        ("optim.epochs=many", "optim.epochs: input should be a valid number"),
        ("optim.epochs=0", "optim.epochs: input should be greater than 0, got 0"),
        ("optim.batch_size=1.5", "optim.batch_size: input should be a valid integer"),
        ("encoder.head=mpl", "'linear', 'mlp', 'projector2' or 'projector3', got 'mpl'"),
        ("method.bn=shufle", "'shuffle', 'split', 'sync' or 'plain', got 'shufle'"),
        ("data.views=moco_v9", "did you mean moco_v"),
        ("data.views.1=moco_v9", "did you mean moco_v"),
        ("data.views.2.grey=0.1", "did you mean data.views.1.grey"),
        ("data.views.0.crop_area=[0.5, 0.2]", "0 < low <= high"),
        ("optim.lr.strat=0.1", "did you mean optim.lr.start"),
        ("method.bn_groups=3", "must be a multiple of method.bn_groups (3)"),
        ("method.bn_groups=1", "does nothing"),
        ("method.bn_groups=128", "needs at least 2"),
        ("method.size=100", "must hold the 128 keys of one step"),
        ("optim.epochs", "expects FIELD=VALUE"),
        ("optim.lr=fast", "optim.lr must be a number or a schedule"),
        ('method.momentum={"kind": "no"}', "method.momentum must be a number or a schedule"),
        ('optim.lr={"start": 1}', "optim.lr must be a number or a schedule"),
        ("optim.lr.start=-1", "optim.lr.start must be 0 or more"),
        ('optim.lr={"kind": "decay", "value": 0.1, "every": 0}', "optim.lr.every: input should be greater than 0"),
        ("method.momentum=1.5", "method.momentum.value must be in [0, 1]"),
        ("data.std=[0, 1, 1]", "data.std.0: input should be greater than 0"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(setting, said):
    with pytest.raises(RecipeError) as error:
        recipes.named("demo").but(None, recipes.parse_settings([setting]))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.small_area=[5, 2]", r"data\.small_area must be \(low, high\) with 0 < low <= high, got \(5\.0, 2\.0\)"),
        ("data.views.0.crop_area=[5, 2]", r"data\.views\.0: crop_area must be .* high, got \(5\.0, 2\.0\)"),
        ("data.groups=(A", r"data\.groups must be 'image', 'folder' or a regular expression, got '\(A': [^:]*"),
    ],
)
def test_a_message_of_our_own_names_setting_and_value_once(setting, message):
    with pytest.raises(RecipeError) as error:
        recipes.named("demo").but(None, recipes.parse_settings([setting]))
    assert re.fullmatch(message, str(error.value))


def test_settings_take_numbers_schedules_and_named_views():
    recipe = recipes.named("demo").but(
        None, recipes.parse_settings(["optim.lr=0.1", "method.momentum.value=0.5", "data.views=moco_v1", "seed=7"])
    )
    assert recipe.optim.lr == Constant(0.1)
    assert recipe.method.momentum == Constant(0.5)
    assert recipe.data.views == (recipes.VIEWS["moco_v1"],) * 2
    assert recipe.seed == 7


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="moco_v2_r50"):
        recipes.named("moco_v2_50")


def test_recipe_json_with_an_unknown_field_is_refused():
    text = recipes.named("demo").to_json().replace('"epochs"', '"epoch"')
    with pytest.raises(RecipeError, match=r"optim\.epoch"):
        Recipe.from_json(text)


def test_views_by_the_name_of_a_pair_are_the_two_of_the_pair():
    recipe = recipes.named("demo").but(None, recipes.parse_settings(["data.views=moco_v3"]))
    assert recipe.data.views == recipes.PAIRS["moco_v3"]
    assert recipe.data.views[0] != recipe.data.views[1]


def test_a_star_in_the_name_of_a_setting_means_both_views():
    settings = recipes.parse_settings(["data.views.*.blur=0.25", "data.views.*.jitter.hue=0.3"])
    recipe = recipes.named("moco_v3_r50_100").but(None, settings)
    assert [(view.blur, view.jitter.hue) for view in recipe.data.views] == [(0.25, 0.3), (0.25, 0.3)]


def test_a_view_by_name_is_the_one_of_its_place():
    settings = recipes.parse_settings(["data.views.1=moco_v3", "data.views.0=cifar"])
    views = recipes.named("demo").but(None, settings).data.views
    assert views == (recipes.VIEWS["cifar"], recipes.PAIRS["moco_v3"][1])


def test_a_whole_number_of_epochs_is_written_without_a_point():
    assert '"epochs": 200,' in recipes.named("moco_v1_r50").to_json()
    assert diff(recipes.named("demo"), recipes.named("demo").but(None, {"optim.epochs": 2.0})) == [
        "optim.epochs: 40 -> 2",
    ]  # fmt: skip


def test_a_schedule_of_another_kind_is_one_difference():
    base = recipes.named("moco_v1_r50")
    changed = base.but(
        None, recipes.parse_settings(['optim.lr={"kind": "cosine", "start": 0.06}', "method.momentum=0.9"])
    )
    assert diff(base, changed) == [
        "method.momentum.value: 0.999 -> 0.9",
        "optim.lr: 0.03, x 0.1 at epochs 120, 160 -> 0.06 to 0, cosine by step",
    ]
    assert diff(base, base.but(None, {"optim.lr.at": (1.0,)})) == ["optim.lr.at: (120.0, 160.0) -> (1.0,)"]


def test_schedules_that_read_alike_differ_by_field():
    base = recipes.named("moco_v1_r50")
    near = base.but(None, {"optim.lr.value": 0.03000000001, "optim.lr.factor": 0.10000000001})
    assert diff(base, near) == ["optim.lr.value: 0.03 -> 0.03000000001", "optim.lr.factor: 0.1 -> 0.10000000001"]


def test_epochs_may_be_a_fraction():
    recipe = recipes.named("demo").but(None, recipes.parse_settings(["optim.epochs=1.5"]))
    assert recipe.optim.epochs == 1.5
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("side", [32, 480])
@pytest.mark.parametrize("n", [16, 17, 50, 500, 5_000, 1_000_000])
def test_the_automatic_recipe_fits_any_number_of_images(n, side, accelerated):
    recipe = recipes.auto(n, side=side, accelerated=accelerated)
    assert recipe.method.size + recipe.optim.batch_size <= n
    assert 1 / (1 - recipe.method.momentum(0, 1)) <= 1000


@pytest.mark.parametrize(
    ("side", "accelerated", "scale", "expected"),
    [
        (6 * 96, False, None, "scaled"), (6 * 96 - 1, False, None, "exact"), (6 * 224, True, None, "scaled"),
        (6 * 224 - 1, True, None, "exact"), (64, False, None, "exact"), (6 * 32, False, "tiny", "scaled"),
        (6 * 32 - 1, False, "tiny", "exact"), (6 * 64, True, "medium", "scaled"),
    ],
)  # fmt: skip
def test_the_automatic_recipe_decodes_images_smaller_that_have_six_times_the_sides_of_a_view(
    side, accelerated, scale, expected
):
    assert recipes.auto(5_000, side=side, accelerated=accelerated, scale=scale).data.decode == expected


def test_a_scale_for_both_views_is_refused_where_each_rank_knows_only_one_of_them():
    base = recipes.named("moco_v2_r50").but(None, {"compute.deal_keys": True})
    with pytest.raises(RecipeError, match=r"set data\.decode=exact"):
        base.but(None, {"data.decode": "scaled"})
    assert base.but(None, {"data.decode": "scaled", "data.shrink": 448}).compute.deal_keys


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_no_recipe_of_a_paper_decodes_images_smaller(name):
    assert recipes.named(name).data.decode == "exact"


def test_fewer_images_than_any_run_needs_are_refused():
    with pytest.raises(RecipeError, match="at least 16 images"):
        recipes.auto(15, side=480, accelerated=False)


@pytest.mark.parametrize("epochs", ["ten", 0, -1, float("nan")])
def test_the_automatic_recipe_refuses_epochs_that_are_no_positive_number(epochs):
    with pytest.raises(RecipeError, match=r"optim\.epochs: input should be"):
        recipes.auto(100, side=32, accelerated=False, epochs=epochs)


def test_a_number_of_more_digits_than_python_reads_is_refused(tmp_path):
    digits, base = "9" * 5000, recipes.named("demo")
    text = base.to_json().replace('"seed": 0', f'"seed": {digits}')
    assert digits in text
    (tmp_path / "long.json").write_text(text)
    attempts = [
        lambda: Recipe.from_json(text),
        lambda: Recipe.read(tmp_path / "long.json"),
        lambda: base.but(None, recipes.parse_settings([f"seed={digits}"])),
        lambda: base.but(None, {"seed": 10**5000}),
    ]
    for attempt in attempts:
        with pytest.raises(RecipeError) as error:
            attempt()
        assert len(str(error.value)) < 1000
        assert "set_int_max_str_digits" not in str(error.value)


def test_settings_are_checked_by_themselves_without_the_rules_of_how_they_fit():
    Recipe.check_settings({"optim.batch_size": 3, "method.size": 1})  # fits no recipe as it stands
    with pytest.raises(RecipeError, match="did you mean optim"):
        Recipe.check_settings({"optim.epoch": 3})
    with pytest.raises(RecipeError, match=r"method\.temperature: input should be greater than 0"):
        Recipe.check_settings({"method.temperature": 0})


def test_the_automatic_recipe_is_fitted_to_a_batch_size_that_is_given():
    recipe = recipes.auto(5_000, side=256, accelerated=True, batch_size=96)
    assert recipe.optim.batch_size == 96
    assert recipe.optim.lr.peak == pytest.approx(0.03 * 96 / 256)
    assert (96 % recipe.method.bn_groups, recipe.method.bn_groups) == (0, 3)  # of 32 images
    assert recipe.method.size == 1024


@pytest.mark.parametrize("batch_size", [0, -4, "many"])
def test_the_automatic_recipe_refuses_a_batch_size_that_is_no_positive_number(batch_size):
    with pytest.raises(RecipeError, match=r"optim\.batch_size: input should be"):
        recipes.auto(100, side=32, accelerated=False, batch_size=batch_size)
