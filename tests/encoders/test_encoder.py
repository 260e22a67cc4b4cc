import copy

import pytest
import torch
from torch import nn

from moco.encoders import build, build_headless, fixed_settings, names
from moco.recipe import EncoderSpec, RecipeError

DEMO = EncoderSpec(name="resnet10", width=0.25, stem="3x3/2", head="mlp", dim=128)


def test_the_demo_network_has_340560_parameters() -> None:
    def conv(inputs: int, outputs: int, side: int) -> int:
        return inputs * outputs * side**2 + 2 * outputs  # and the weight and bias of its BN

    def block(inputs: int, outputs: int) -> int:
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + shortcut

    backbone = conv(3, 16, 3) + block(16, 16) + block(16, 32) + block(32, 64) + block(64, 128)
    head = (128 * 128 + 128) + (128 * 128 + 128)
    assert backbone + head == 340_560
    assert sum(parameter.numel() for parameter in build(DEMO).parameters()) == backbone + head


def test_an_embedding_is_the_head_of_the_feature() -> None:
    encoder = build(DEMO).eval()
    x = torch.randn(3, 3, 32, 32)
    embedding = encoder(x)
    assert embedding.shape == (3, 128)
    torch.testing.assert_close(embedding, encoder.head(encoder.backbone(x)))
    assert not torch.allclose(embedding.norm(dim=1), torch.ones(3), atol=0.01)  # the method normalizes, not we


def test_the_state_dict_has_the_backbone_and_the_head_by_name() -> None:
    keys = build(DEMO).state_dict().keys()
    assert {"backbone.conv1.weight", "backbone.layer4.0.bn2.num_batches_tracked", "head.2.bias"} <= set(keys)
    assert {key.partition(".")[0] for key in keys} == {"backbone", "head"}


def test_without_a_head_the_embedding_is_the_feature() -> None:
    encoder = build_headless(DEMO).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder(x), encoder.features(x))


@pytest.mark.parametrize("name", ["resnet10", "torchvision/shufflenet_v2_x0_5", "timm/test_resnet"])
def test_a_copy_computes_the_same_and_shares_nothing(name: str) -> None:
    encoder = build(EncoderSpec(name=name), size=64).eval()
    twin = copy.deepcopy(encoder)  # f_k
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(twin(x), encoder(x))
    assert torch.equal(twin.features(x, dense=True), encoder.features(x, dense=True))
    nn.init.zeros_(next(twin.backbone.parameters()))
    assert not torch.equal(twin.features(x, dense=True), encoder.features(x, dense=True))


def test_the_seed_decides_the_weights() -> None:
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        states.append(build(DEMO).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["backbone.conv1.weight"], states[2]["backbone.conv1.weight"])


def test_names_has_our_torchvisions_and_timms_networks() -> None:
    known, ours = names(), {"resnet10", "resnext50_32x8d", "vit_small", "vit_conv_base"}
    assert ours | {"torchvision/vit_b_16", "timm/convnext_tiny"} <= set(known)
    assert len(known) == len(set(known)) > 1000


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet51", "resnet50"),
        ("torchvision/resnet51", "torchvision/resnet50"),
        ("timm/convnext_tinny", "timm/convnext_tiny"),
        ("vit_small_patch16_224", "timm/vit_small_patch16_224"),
        ("timm/resnet18.nobody_trained_this", "timm/resnet18"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision/"),
        ("xyzzy", "known are: resnet10, .*timm/NAME"),
        ("timm/hf-hub:timm/resnet18.a1_in1k", "timm/"),  # never a download
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(RecipeError, match=f"unknown encoder '{name}'.*{near}"):
        build(EncoderSpec(name=name))


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_vit", "vit_small"])
@pytest.mark.parametrize("setting", [{"width": 2.0}, {"stem": "3x3"}, {"dilate_last": True}, {"zero_init": True}])
def test_settings_of_our_own_resnets_are_refused_for_others(setting: dict[str, object], name: str) -> None:
    with pytest.raises(RecipeError, match=f"encoder.{next(iter(setting))} applies only to resnet10"):
        build(EncoderSpec.model_validate({"name": name} | setting))


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_vit", "resnet18"])
@pytest.mark.parametrize("setting", [{"patch": 8}, {"position": "learned"}, {"freeze_patch": True}])
def test_settings_of_our_own_vits_are_refused_for_others(setting: dict[str, object], name: str) -> None:
    with pytest.raises(RecipeError, match=f"encoder.{next(iter(setting))} applies only to vit_small.*, not to {name}"):
        build(EncoderSpec.model_validate({"name": name} | setting))


def test_fixed_settings_are_those_that_only_other_networks_have() -> None:
    resnets, vits = {"stem", "width", "dilate_last", "zero_init"}, {"patch", "position", "freeze_patch"}
    assert fixed_settings("resnet50").keys() == vits
    assert fixed_settings("vit_base").keys() == resnets
    assert fixed_settings("custom").keys() == fixed_settings("timm/vit_base_patch16_224").keys() == resnets | vits


def test_custom_and_a_module_go_together() -> None:
    with pytest.raises(RecipeError, match="got 'custom' and no module"):
        build(EncoderSpec(name="custom"))
    with pytest.raises(RecipeError, match="got 'resnet18' and a Conv2d"):
        build(EncoderSpec(name="resnet18"), model=nn.Conv2d(3, 4, 1))
