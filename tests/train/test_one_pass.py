"""When the encoders run once over all BN groups: on a GPU whose memory holds the activations."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from moco import recipes
from moco.encoders import build
from moco.method import grouped
from moco.method.batchnorm import GroupedBatchNorm
from moco.recipe import EncoderSpec
from moco.train.build import contrast_for
from moco.train.one_pass import activation_bytes, fits, in_one_pass
from moco.train.unused_parameters import find_unused_parameters

GB = 10**9
V2 = recipes.named("moco_v2_r50")


def test_the_activations_of_layers_are_counted():
    """A convolution keeps its input, ReLU its output, BN its input, means and deviations; weights do not count."""
    size = 8
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
    image, maps, statistics = 3 * size**2, 5 * size**2, 2 * 5 / 2  # numbers of an image; statistics are for two
    assert activation_bytes(network, size) == 4 * (image + 2 * maps + statistics)


def test_a_resnet50_takes_what_was_measured_on_a_gpu():
    """88 MB of an image in float32 and 46 in bf16 on an H200 (docs/speed.md), temporary tensors included."""
    each = activation_bytes(build(EncoderSpec(name="resnet50"), size=224), 224)
    assert 0.9 * 88e6 < each < 88e6


def test_a_network_that_needs_numbers_does_not_fit():
    class Reads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.mean())

    assert activation_bytes(Reads(), 8) == float("inf")


@pytest.mark.parametrize(("precision", "memory", "expected"), [
    ("fp32", 80 * GB, True), ("fp32", 24 * GB, False), ("bf16", 24 * GB, True), ("bf16", 12 * GB, False),
])  # fmt: skip
def test_256_images_fit_large_cards_only(precision, memory, expected):
    recipe = V2.but(None, {"compute.precision": precision})
    assert fits(recipe, build(recipe.encoder, size=224), memory) == expected


@pytest.mark.parametrize(("crops", "size", "expected"), [(4, 112, True), (4, 224, False), (16, 96, False)])
def test_small_crops_count_where_they_take_more_than_the_query(crops, size, expected):
    """Four of half the side have the pixels of one query; sixteen of 96 pixels have 2.9 times as many."""
    recipe = V2.but(None, {"data.small_crops": crops, "data.small_size": size})
    assert fits(recipe, build(recipe.encoder, size=224), 60 * GB) == expected


@pytest.mark.parametrize(("device", "asked", "memory", "expected"), [
    ("cpu", None, 0, False), ("cpu", True, 0, True), ("cpu", False, 0, False), ("cuda", None, 80 * GB, True),
    ("cuda", None, 8 * GB, False), ("cuda", False, 80 * GB, False), ("cuda", True, 8 * GB, True),
])  # fmt: skip
def test_a_gpu_makes_one_pass_if_it_fits_or_the_recipe_says_so(device, asked, memory, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    recipe = V2.but(None, {"compute.one_pass": asked})
    assert in_one_pass(recipe, torch.device(device), build(recipe.encoder, size=224)) == expected


@pytest.mark.parametrize("changes", [{"method.bn": "plain"}, {"method.bn_groups": 1, "method.bn": "split"}])
def test_one_bn_group_needs_no_other_layers(changes):
    recipe = V2.but(None, {"compute.one_pass": True, **changes})
    assert not in_one_pass(recipe, torch.device("cpu"), nn.Identity())


def test_a_run_in_one_pass_has_the_layers_and_the_weights_of_the_other(tiny):
    state = {}
    for asked in (False, True):
        recipe = tiny.but(None, {"compute.one_pass": asked})
        contrast = contrast_for(recipe, torch.device("cpu"), num_images=40, model=None, init=None, say=print)
        assert contrast.one_pass == asked
        assert any(isinstance(layer, GroupedBatchNorm) for layer in contrast.modules()) == asked
        state[asked] = contrast.state_dict()
    torch.testing.assert_close(state[True], state[False], rtol=0, atol=0)


def test_parameters_without_a_gradient_are_found_with_any_number_of_groups():
    """By a pass over two images, which do not divide into four groups."""
    network = grouped(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 4)
    assert network is not None
    assert find_unused_parameters(network, size=8) == []
