import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from moco.data.augment.crop import eval_crop
from moco.data.sources.folder import find_images
from moco.encoders import Encoder, build_headless
from moco.evaluate.baselines import Pixels, random_encoder
from moco.evaluate.features import extract
from moco.recipe import DataSpec, EncoderSpec, RecipeError
from tests.evaluate.samples import CPU, DATA


@pytest.mark.parametrize(("size", "block"), [(16, 1), (32, 1), (64, 2), (96, 3)])
def test_raw_pixels_are_the_evaluation_crop_averaged_down_to_32(pictures: Path, size: int, block: int):
    data = DataSpec(size=size, eval_resize=size, mean=DATA.mean, std=DATA.std)
    images = find_images(pictures)
    features = extract(Pixels(data), images, data, device=CPU)
    crop = eval_crop(images.read(3), data).astype(np.float64) / 255
    side = size // block
    expected = crop.reshape(3, side, block, side, block).mean(axis=(2, 4)).ravel()
    assert features.x.shape == (40, Pixels(data).num_features)
    np.testing.assert_allclose(features.x[3], expected, atol=1e-6)


def test_a_random_encoder_depends_on_its_seed_alone(encoder: Encoder):
    x = torch.randn(4, 3, 16, 16)
    torch.manual_seed(1)
    one = random_encoder(encoder, seed=5)
    torch.manual_seed(2)
    other, third = random_encoder(encoder, seed=5), random_encoder(encoder, seed=6)
    assert torch.equal(one.features(x), other.features(x))
    assert not torch.equal(one.features(x), third.features(x))
    assert not one.training


def test_a_random_encoder_does_not_change_the_callers_random_state(encoder: Encoder):
    before = torch.random.get_rng_state()
    random_encoder(encoder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_random_encoder_has_the_same_shapes_and_none_of_the_weights(encoder: Encoder):
    fresh = random_encoder(encoder)
    for (name, ours), (same, theirs) in zip(
        encoder.backbone.named_parameters(), fresh.backbone.named_parameters(), strict=True
    ):
        assert (name, ours.shape) == (same, theirs.shape)
        assert ours.ndim == 1 or not torch.equal(ours, theirs)


def test_a_random_encoder_normalizes_with_the_statistics_that_bn_begins_with(encoder: Encoder):
    parts = [part for part in random_encoder(encoder).modules() if isinstance(part, nn.BatchNorm2d)]
    assert parts
    for part in parts:
        assert part.running_mean is not None
        assert part.running_var is not None
        assert not part.running_mean.any()
        assert torch.equal(part.running_var, torch.ones_like(part.running_var))


def test_a_module_of_the_user_gets_new_random_parameters():
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[1].running_mean.fill_(3)
    encoder = build_headless(EncoderSpec(name="custom"), model=network, size=16)
    before = copy.deepcopy(encoder.state_dict())
    fresh = random_encoder(encoder)
    assert not torch.equal(fresh.backbone[0].weight, network[0].weight)
    assert not fresh.backbone[1].running_mean.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_a_module_without_new_random_parameters_is_an_error_that_names_the_part():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * self.scale

    encoder = build_headless(EncoderSpec(name="custom"), model=nn.Sequential(Scaled()), size=16)
    with pytest.raises(RecipeError, match=r"backbone\.0 has parameters and no reset_parameters"):
        random_encoder(encoder)
