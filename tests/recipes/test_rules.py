"""The rules that cross the parts of a recipe, and what follows from its numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from moco import recipes
from moco.recipe import Recipe, RecipeError


def changed(name: str, *settings: str) -> Recipe:
    return recipes.named(name).but(None, recipes.parse_settings(list(settings)))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        # Fig. 2: who makes the keys of each dictionary
        ("moco_v1_r50", ["method.key_encoder=shared"], "dictionary=queue needs method.key_encoder=momentum"),
        ("moco_v1_r50", ["method.key_encoder=second"], "dictionary=queue needs method.key_encoder=momentum"),
        ("moco_v1_r50", ["method.key_encoder=none"], "dictionary=queue needs method.key_encoder=momentum"),
        ("end_to_end_256", ["method.key_encoder=none"], "key_encoder=momentum or shared or second (Fig. 2), got none"),
        ("memory_bank_nce", ["method.key_encoder=momentum"], "dictionary=bank needs method.key_encoder=none"),
        ("moco_v1_r50", ["method.dictionary=bank"], "dictionary=bank needs method.key_encoder=none"),
        ("end_to_end_256", ["method.size=4096"], "set method.size=null, got 4096"),
        ("moco_v3_r50_100", ["method.size=4096"], "set method.size=null, got 4096"),
        ("moco_v1_r50", ["method.size=null"], "set method.size=65536, got None"),
        ("memory_bank_nce", ["method.size=null"], "set method.size=65536, got None"),
        ("moco_v1_r50", ["method.symmetric=true", "method.size=511"], "must hold the 512 keys of one step"),
        ("memory_bank_infonce", ["method.symmetric=true"], "a memory bank has one for each image: set it to false"),
        ("moco_v1_r50", ["method.loss=nce"], "need a memory bank: set method.dictionary=bank, or neither"),
        ("end_to_end_256", ["method.negatives=each"], "need a memory bank: set method.dictionary=bank, or neither"),
        # Sec. 3.3: BN groups
        ("moco_v1_r50", ["method.bn_groups=7"], "optim.batch_size (256) must be a multiple of method.bn_groups (7)"),
        ("memory_bank_nce", ["method.bn_groups=7"], "must be a multiple of method.bn_groups (7)"),
        ("moco_v1_r50", ["method.bn_groups=256"], "leaves 1 image in a BN group"),
        ("moco_v1_r50", ["method.bn_groups=1"], "does nothing"),
        ("memory_bank_infonce", ["method.bn=shuffle"], "those of a memory bank are older: set method.bn=split"),
        ("moco_v3_r50_100", ["optim.batch_size=1"], "BN needs at least 2"),
        # pieces of a mini-batch
        ("moco_v1_r50", ["optim.cached=true"], "optim.cached needs method.dictionary=batch"),
        ("end_to_end_256", ["optim.accumulate=2"], "another method (method.dictionary=batch): set optim.cached=true"),
        ("memory_bank_nce", ["optim.accumulate=2"], "estimates Z from the whole mini-batch"),
        ("moco_v1_r50", ["optim.accumulate=3"], "bn_groups a multiple of 3, got method.bn=shuffle with 8"),
        ("moco_v3_r50_100", ["optim.accumulate=4", "optim.cached=true"], "a multiple of 4, got method.bn=sync with 1"),
        ("moco_v1_r50", ["method.bn=plain", "optim.accumulate=2"], "a multiple of 2, got method.bn=plain with 1"),
        ("moco_v1_r50", ["compute.cuda_graphs=true"], "set compute.compile=true as well"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_what_to_do(name: str, settings: list[str], said: str):
    with pytest.raises(RecipeError) as error:
        changed(name, *settings)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("moco_v1_r50", ["method.symmetric=true", "method.size=512"]),
        ("moco_v1_r50", ["method.bn_groups=128"]),
        ("moco_v1_r50", ["method.bn=plain", "method.bn_groups=1"]),
        ("moco_v1_r50", ["method.bn=split", "method.bn_groups=1"]),
        ("moco_v1_r50", ["optim.accumulate=8"]),
        ("moco_v1_r50", ["method.predictor=mlp"]),
        ("end_to_end_256", ["method.key_encoder=second"]),
        ("end_to_end_256", ["method.key_encoder=momentum"]),
        ("end_to_end_256", ["method.symmetric=true"]),
        ("end_to_end_1024", ["optim.accumulate=8", "optim.cached=true"]),
        ("moco_v3_vit_small", ["method.bn=split", "method.bn_groups=64", "optim.accumulate=64", "optim.cached=true"]),
        ("memory_bank_infonce", ["method.negatives=each", "optim.accumulate=4"]),
        ("memory_bank_nce", ["method.bn=plain"]),
    ],
)
def test_parts_that_fit_are_accepted(name: str, settings: list[str]):
    assert changed(name, *settings) != recipes.named(name)


def cross_entropy_of_equal_logits(candidates: int) -> float:
    return F.cross_entropy(torch.zeros(1, candidates, dtype=torch.float64), torch.tensor([0])).item()


@pytest.mark.parametrize("size", [7, 4096])
def test_the_collapse_level_of_a_queue_is_the_cross_entropy_of_k_and_one_equal_logits(size: int):
    alike = cross_entropy_of_equal_logits(size + 1)
    small = ["optim.batch_size=4", "method.bn_groups=2", f"method.size={size}"]
    assert changed("demo", *small).collapse_level == pytest.approx(alike, rel=1e-12)


def test_the_collapse_level_of_in_batch_keys_is_the_cross_entropy_of_as_many_equal_logits_as_images():
    assert recipes.named("end_to_end_512").collapse_level == pytest.approx(cross_entropy_of_equal_logits(512))


def test_the_collapse_level_of_a_symmetric_loss_is_twice_as_high():
    one, both = recipes.named("moco_cifar"), recipes.named("moco_cifar_symmetric")
    assert both.collapse_level == pytest.approx(2 * one.collapse_level)


def test_the_collapse_level_of_nce_is_its_loss_when_no_key_is_likelier_than_another():
    """arXiv:1805.01978, Eqn. (4) to (8): P = 1 / n for each of n images, h = P / (P + K / n)."""
    n, k = 1_281_167, 4096
    h = (1 / n) / (1 / n + k / n)
    expected = -math.log(h) - k * math.log(1 - h)
    assert recipes.named("memory_bank_nce").collapse_level == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "settings", "level"),
    [  # 4 tau ln N in v3, ln(K + 1) in v1 and v2
        ("moco_v1_r50", [], 11.09),
        ("moco_v2_r50", [], 11.09),
        ("moco_cifar", [], 8.32),
        ("moco_v3_r50_100", [], 33.27),
        ("moco_v3_vit_base", [], 6.65),
        ("moco_v3_vit_small", ["optim.batch_size=1024"], 5.55),
    ],
)
def test_the_collapse_levels_are_those_that_users_of_the_released_code_know(
    name: str, settings: list[str], level: float
):
    assert changed(name, *settings).collapse_level == pytest.approx(level, abs=0.005)


def test_a_query_is_classified_among_its_negatives_and_its_own_key():
    counts = {"moco_v1_r50": 65537, "memory_bank_nce": 4097, "end_to_end_256": 256, "moco_v3_r50_100": 4096}
    assert {name: recipes.named(name).candidates for name in counts} == counts


def test_batch_norm_has_groups_on_one_rank_where_it_is_split_or_shuffled():
    groups = {"moco_v1_r50": 8, "moco_v1_ig1b": 64, "memory_bank_nce": 8, "moco_v3_vit_small": 1}
    assert {name: recipes.named(name).groups for name in groups} == groups
