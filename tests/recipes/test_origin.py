"""Every number has a source, or is said to be this project's choice; nothing is inherited by accident."""

import pytest

from moco import recipes
from moco.explain import find_entry, lineage
from moco.recipes.auto import FITTED, auto_origin
from moco.recipes.sources_of_numbers import Origin, Published, idle_settings, settings_of


def source_of(origin: Origin, name: str, value: object) -> str | None:
    found = find_entry(lineage(origin), lambda one: one.sources, name, value)
    return found and found[1]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_setting_of_every_recipe_has_a_source(name: str):
    recipe, origin = recipes.named(name), recipes.ORIGINS[name]
    without = idle_settings(recipe)
    bare = [
        setting
        for setting, value in settings_of(recipe).items()
        if setting not in without and source_of(origin, setting, value) is None
    ]
    assert bare == []


def test_a_changed_setting_does_not_inherit_the_source_of_another_value():
    origin = Origin({"optim.epochs": "a paper"}, base="moco_v1_r50")
    assert source_of(origin, "optim.batch_size", 256) == recipes.ORIGINS["moco_v1_r50"].sources["optim.batch_size"]
    assert source_of(origin, "optim.batch_size", 512) is None
    assert source_of(origin, "optim.epochs", 100) == "a paper"


def test_a_default_of_the_package_is_no_source_for_another_value():
    origin = Origin({})
    assert source_of(origin, "compute.compile", False) is not None
    assert source_of(origin, "compute.compile", True) is None
    assert source_of(origin, "optim.batch_size", 256) is None


def test_the_source_is_that_of_the_longest_prefix_of_whole_names():
    origin = Origin({"data.views": "both", "data.views.jitter": "jitter", "optim.lr": "rate"})
    assert source_of(origin, "data.views.1.jitter.hue", 0.1) == "jitter"
    assert source_of(origin, "data.views.0.blur", 0.5) == "both"
    assert source_of(Origin({"encoder.head": "head"}), "encoder.head_bn", True) is None


def test_every_name_in_the_tables_is_a_setting():
    for name, origin in recipes.ORIGINS.items():
        known = {setting.replace(".0.", ".").replace(".1.", ".") for setting in settings_of(recipes.named(name))}
        for key in [*origin.sources, *origin.deviations]:
            assert any(f"{setting}.".startswith(f"{key}.") for setting in known), (name, key)


def test_every_recipe_has_an_origin_and_every_origin_a_recipe():
    assert set(recipes.ORIGINS) == set(recipes.RECIPES)


PUBLISHED = {  # ImageNet linear top-1 [%]: v1 Table 1, Fig. 3, footnote 2; v2 Tables 1, 2; moco-v3 CONFIG.md, v3
    "moco_v1_r50": 60.6, "moco_v1_rx50": 63.9, "moco_v1_r50w2x": 65.4, "moco_v1_r50w4x": 68.6,
    "moco_v2_r50": 67.5, "moco_v2_r50_800": 71.1,
    "moco_v3_r50_100": 68.9, "moco_v3_r50_300": 72.8, "moco_v3_r50_1000": 74.6,
    "moco_v3_vit_small": 73.2, "moco_v3_vit_base": 76.7, "moco_v3_vit_large": 77.6,
    "memory_bank_infonce": 58.0, "memory_bank_nce": 54.3,
    "end_to_end_256": 54.9, "end_to_end_512": 56.4, "end_to_end_1024": 57.3,
    "moco_cifar": 82.6, "moco_cifar_symmetric": 85.3,  # kNN
    "moco_v1_ig1b": 57.2,  # VOC AP
}  # fmt: skip


def test_the_first_published_result_is_the_papers():
    assert {
        name: origin.published[0].value for name, origin in recipes.ORIGINS.items() if origin.published
    } == PUBLISHED


def test_a_number_that_was_read_from_a_figure_says_so():
    for name in ("end_to_end_256", "end_to_end_512", "end_to_end_1024"):
        assert recipes.ORIGINS[name].published[0].source.startswith("read from")


@pytest.mark.parametrize("side", [32, 480])
@pytest.mark.parametrize("accelerated", [False, True])
def test_what_the_automatic_recipe_fits_is_all_that_differs_from_its_base(side: int, accelerated: bool):
    recipe = recipes.auto(5_000, side=side, accelerated=accelerated)
    now, base = settings_of(recipe), settings_of(recipes.named(str(auto_origin(recipe).base)))
    assert {name for name in now if now[name] != base[name]} <= set(FITTED)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("moco_v1_r50", {"method.bank_momentum", "optim.trust", "encoder.hidden", "data.views.0.blur_sigma"}),
        ("moco_v3_r50_100", {"method.bn_groups", "method.negatives", "encoder.position"}),
        ("moco_v3_vit_small", {"optim.momentum", "encoder.stem", "encoder.width", "encoder.zero_init"}),
        ("memory_bank_nce", {"method.momentum", "data.views.1.flip"}),
        ("end_to_end_256", {"method.momentum", "optim.cached"}),
        ("demo", {"data.views.0.grey_first", "encoder.patch"}),
    ],
)
def test_settings_without_effect_are_known(name: str, without: set[str]):
    assert without <= idle_settings(recipes.named(name))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("moco_v1_r50", {"method.momentum", "method.bn_groups", "optim.momentum", "data.views.1.flip"}),
        ("moco_v2_r50", {"data.views.0.blur_sigma", "encoder.stem"}),
        ("moco_v3_r50_100", {"optim.trust", "encoder.hidden", "encoder.head_bn", "encoder.zero_init"}),
        ("moco_v3_vit_small", {"encoder.freeze_patch", "encoder.position", "encoder.patch"}),
        ("memory_bank_nce", {"method.bank_momentum", "method.negatives", "method.bn_groups"}),
    ],
)
def test_settings_with_an_effect_are_not_called_idle(name: str, needed: set[str]):
    assert not needed & idle_settings(recipes.named(name))


def test_a_published_result_is_a_percentage_with_a_source():
    for origin in recipes.ORIGINS.values():
        for one in origin.published:
            assert isinstance(one, Published)
            assert 0 < one.value < 100
            assert one.source
