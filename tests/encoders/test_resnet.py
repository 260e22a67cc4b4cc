import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TheirResNet

from moco.encoders.resnet import NETS, ResNet, resnet
from moco.recipe import EncoderSpec, RecipeError

THEIRS = {
    "resnet10": lambda: TheirResNet(BasicBlock, [1, 1, 1, 1]),
    "resnext50_32x8d": lambda: models.resnet50(groups=32, width_per_group=8),
}


def theirs(name: str) -> nn.Module:
    return THEIRS.get(name, lambda: models.get_model(name))()


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items() if not key.startswith("fc.")}


def on_meta(spec: EncoderSpec) -> ResNet:
    with torch.device("meta"):
        return resnet(spec).eval()


def same_features(ours: ResNet, other: nn.Module) -> float:
    """The largest difference of the features of two images, with the same weights of random BN statistics."""
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.2, 0.6)
    other.fc = nn.Identity()
    other.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = ours.eval()(x)
        assert features.abs().max() > 1e-3
        return (features - other.eval()(x)).abs().max().item()


@pytest.mark.parametrize("name", NETS)
def test_names_and_shapes_are_those_of_torchvision_without_fc(name: str) -> None:
    with torch.device("meta"):
        other = theirs(name)
    assert shapes(on_meta(EncoderSpec(name=name))) == shapes(other)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x8d"])
def test_features_are_those_of_torchvision(name: str) -> None:
    assert same_features(resnet(EncoderSpec(name=name)), theirs(name)) < 1e-6


def test_dilated_features_are_those_of_torchvision() -> None:
    other = models.resnet50(replace_stride_with_dilation=[False, False, True])
    assert same_features(resnet(EncoderSpec(name="resnet50", dilate_last=True)), other) < 1e-6


def test_dilation_keeps_the_size_of_the_map() -> None:
    x = torch.zeros(1, 3, 64, 64, device="meta")
    assert on_meta(EncoderSpec(name="resnet50")).dense(x).shape == (1, 2048, 2, 2)
    assert on_meta(EncoderSpec(name="resnet50", dilate_last=True)).dense(x).shape == (1, 2048, 4, 4)


@pytest.mark.parametrize(("stem", "side"), [("7x7/2+pool", 1), ("3x3", 4), ("3x3/2", 2)])
def test_the_size_of_the_map_depends_on_the_stem(stem: str, side: int) -> None:
    network = on_meta(EncoderSpec(name="resnet18", stem=stem))
    assert network.dense(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 512, side, side)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x8d"])
@pytest.mark.parametrize("width", [0.25, 2, 4])
def test_width_multiplies_the_channels_of_every_layer(name: str, width: float) -> None:
    plain, wide = on_meta(EncoderSpec(name=name)), on_meta(EncoderSpec(name=name, width=width))
    assert wide.num_features == width * plain.num_features
    for one, other in zip(plain.modules(), wide.modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            assert other.out_channels == width * one.out_channels
            assert other.in_channels == (3 if one.in_channels == 3 else width * one.in_channels)
        if isinstance(one, nn.BatchNorm2d):
            assert other.num_features == width * one.num_features


def test_r50w4x_has_a_stem_of_256_and_8192_features() -> None:
    network = on_meta(EncoderSpec(name="resnet50", width=4))
    assert (network.conv1.out_channels, network.num_features) == (256, 8192)


def test_the_feature_is_the_mean_of_the_map() -> None:
    network = resnet(EncoderSpec(name="resnet10", width=0.25)).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(x), network.dense(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("stem", ["7x7/2+pool", "3x3", "3x3/2"])
def test_convolutions_are_initialized_as_by_he_et_al(stem: str) -> None:
    network = resnet(EncoderSpec(name="resnet18", stem=stem))
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and (stem, name) != ("3x3", "conv1"):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            spread = module.weight.std().item() * (fan_out / 2) ** 0.5
            assert spread == pytest.approx(1, abs=5 / module.weight.numel() ** 0.5), name


def test_the_3x3_stem_is_initialized_as_in_the_notebook() -> None:
    weight = resnet(EncoderSpec(name="resnet18", stem="3x3")).conv1.weight
    bound = (3 * 9) ** -0.5  # nn.Conv2d's own: uniform within 1 / sqrt(fan-in)
    assert 0.95 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_bn_starts_at_one_and_zero_in_every_block() -> None:
    for module in resnet(EncoderSpec(name="resnet50", width=0.25)).modules():
        if isinstance(module, nn.BatchNorm2d):  # weights of zero would be a zero-init residual
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


def test_a_width_that_splits_a_channel_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"multiple of 1/64, got 0\.3"):
        resnet(EncoderSpec(name="resnet18", width=0.3))
    with pytest.raises(RecipeError, match=r"multiple of 1/8, got 0\.0625"):
        resnet(EncoderSpec(name="resnext50_32x8d", width=1 / 16))


def test_basic_blocks_are_not_dilated() -> None:
    with pytest.raises(RecipeError, match="bottleneck"):
        resnet(EncoderSpec(name="resnet18", dilate_last=True))


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_starts_the_last_bn_of_each_block_at_zero_as_torchvision_does(name: str, last: str) -> None:
    theirs = models.get_model(name, zero_init_residual=True)
    expected = {key for key, value in theirs.state_dict().items() if key.endswith("weight") and not value.any()}
    made = resnet(EncoderSpec(name=name, zero_init=True)).state_dict()
    assert {key for key, value in made.items() if key.endswith("weight") and not value.any()} == expected
    assert all(key.endswith(f"{last}.weight") for key in expected)


def test_zero_init_changes_no_other_weight() -> None:
    states = []
    for zero_init in (False, True):
        torch.manual_seed(2)
        states.append(resnet(EncoderSpec(name="resnet10", width=0.25, zero_init=zero_init)).state_dict())
    differ = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert differ == {f"layer{stage}.0.bn2.weight" for stage in (1, 2, 3, 4)}
