import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from moco.encoders import build, build_headless
from moco.encoders.torchvision_timm import TORCHVISION, classifier, library_data
from moco.recipe import EncoderSpec, RecipeError

SMALL_TORCHVISION = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"]
SMALL_TIMM = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "resnet18", "levit_128s"]


def keys(module: nn.Module) -> set[str]:
    return set(module.state_dict())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "densenet121", "googlenet"])
def test_torchvision_names_are_the_librarys_less_the_classifier(name: str) -> None:
    encoder = build_headless(EncoderSpec(name=f"torchvision/{name}"), size=64)
    more = {"init_weights": False} if name == "googlenet" else {}
    gone = keys(models.get_model(name, **more)) - keys(encoder.backbone)
    assert keys(encoder.backbone) < keys(models.get_model(name, **more))
    layer = {"mobilenet_v3_small": "classifier.3", "squeezenet1_1": "classifier.1", "densenet121": "classifier"}
    auxiliary = {key for key in gone if key.startswith("aux")}
    assert gone - auxiliary == {f"{layer.get(name, 'fc')}.weight", f"{layer.get(name, 'fc')}.bias"}
    assert bool(auxiliary) == (name == "googlenet")


@pytest.mark.parametrize("name", SMALL_TIMM)
def test_timm_names_are_the_librarys_less_the_classifier(name: str) -> None:
    encoder = build_headless(EncoderSpec(name=f"timm/{name}"))
    gone = keys(timm.create_model(name)) - keys(encoder.backbone)
    assert keys(encoder.backbone) < keys(timm.create_model(name))
    assert {key.rpartition(".")[0] for key in gone} == set(classifier(f"timm/{name}", encoder.backbone))


@pytest.mark.parametrize("name", SMALL_TORCHVISION)
def test_torchvision_features_are_what_the_classifier_sees(name: str) -> None:
    encoder = build_headless(EncoderSpec(name=f"torchvision/{name}"), size=64).eval()
    whole = models.get_model(name).eval()
    whole.load_state_dict(encoder.backbone.state_dict(), strict=False)
    seen: list[Tensor] = []
    last = [one for one in whole.modules() if isinstance(one, nn.Linear | nn.Conv2d)][-1]
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole(x)
        features = encoder.features(x)
    assert features.shape == (2, encoder.num_features)
    expected = seen[0].relu().mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]  # SqueezeNet classifies, then pools
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("name", SMALL_TIMM)
def test_timm_features_are_those_before_its_classifier(name: str) -> None:
    encoder = build_headless(EncoderSpec(name=f"timm/{name}")).eval()
    whole = timm.create_model(name).eval()
    whole.load_state_dict(encoder.backbone.state_dict(), strict=False)
    size = library_data(f"timm/{name}").size
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(x), pre_logits=True) if "levit" not in name else None
        features = encoder.features(x)
    assert features.shape == (2, encoder.num_features)
    if expected is not None:
        torch.testing.assert_close(features, expected)


def test_every_class_of_torchvisions_classifiers_is_known() -> None:
    families = {models.get_model_builder(name).__module__: name for name in models.list_models(module=models)}
    for name in families.values():
        with torch.device("meta") if "regnet" not in name else torch.device("cpu"):
            more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            network = models.get_model(name, **more)
        parts = TORCHVISION[type(network).__name__]
        assert network.get_submodule(parts.map) is not None
        last = network.get_submodule(parts.classifier)
        assert getattr(last, "out_features", getattr(last, "out_channels", None)) == 1000


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_a_torchvision_map_averages_to_the_feature(name: str) -> None:
    encoder = build_headless(EncoderSpec(name=f"torchvision/{name}"), size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        dense = encoder.features(x, dense=True)
        assert dense.shape[2] > 1
        torch.testing.assert_close(dense.mean(dim=(2, 3)), encoder.features(x))


def test_dense_leaves_no_hook_behind() -> None:
    encoder = build_headless(EncoderSpec(name="torchvision/resnet18"), size=64).eval()
    encoder.features(torch.zeros(1, 3, 64, 64), dense=True)
    assert not any(module._forward_hooks for module in encoder.modules())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("test_resnet", (2, 96, 5, 5)),
        ("test_vit", (2, 100, 64)),  # 10 x 10 patches and a class token
        pytest.param("swin_tiny_patch4_window7_224", (2, 768, 7, 7), marks=pytest.mark.slow),  # N x h x w x D in timm
    ],
)
def test_timm_maps_have_the_channels_first_and_no_class_token(name: str, shape: tuple[int, ...]) -> None:
    encoder = build_headless(EncoderSpec(name=f"timm/{name}")).eval()
    size = library_data(f"timm/{name}").size
    with torch.no_grad():
        assert encoder.features(torch.zeros(2, 3, size, size), dense=True).shape == shape


def test_torchvisions_vision_transformer_gives_no_class_token_among_its_patches() -> None:
    with torch.device("meta"):
        encoder = build_headless(EncoderSpec(name="torchvision/vit_b_32"))
    assert encoder.features(torch.zeros(2, 3, 224, 224, device="meta"), dense=True).shape == (2, 7 * 7, 768)


@pytest.mark.slow
def test_torchvisions_vision_transformer_gives_its_patch_tokens() -> None:
    encoder = build_headless(EncoderSpec(name="torchvision/vit_b_32")).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = encoder.features(x, dense=True)
        assert tokens.shape == (1, 49, 768)
        network = encoder.backbone
        with_class = network.encoder(torch.cat([network.class_token, network._process_input(x)], dim=1))
    torch.testing.assert_close(tokens, with_class[:, 1:])
    torch.testing.assert_close(encoder.features(x), with_class[:, 0])


def test_a_timm_network_without_a_map_says_so() -> None:
    encoder = build_headless(EncoderSpec(name="timm/crossvit_9_240")).eval()
    with pytest.raises(RecipeError, match="no single feature map"):
        encoder.features(torch.zeros(1, 3, 240, 240), dense=True)


def test_a_vision_transformer_of_timm_is_built_for_the_size_of_the_images() -> None:
    encoder = build_headless(EncoderSpec(name="timm/test_vit"), size=32).eval()
    assert encoder.features(torch.zeros(2, 3, 32, 32), dense=True).shape == (2, 4, 64)  # patches of 16 pixels


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("torchvision/vit_b_32", 32, "expects 224 x 224: set data.size=224"),
        ("torchvision/inception_v3", 32, "expects 299 x 299"),
        ("timm/crossvit_9_240", 32, "expects 240 x 240"),
        ("timm/test_vit", 8, "expects 160 x 160"),
    ],
)
def test_a_size_that_a_network_does_not_take_is_refused_with_the_size_it_expects(
    name: str, size: int, expected: str
) -> None:
    with pytest.raises(RecipeError, match=expected) as caught:
        build(EncoderSpec(name=name), size=size)
    assert f"does not take images of {size} x {size} pixels" in str(caught.value)


def test_the_images_of_a_library_network_are_those_its_weights_were_made_for() -> None:
    theirs = library_data("torchvision/resnet50")
    look = models.ResNet50_Weights.DEFAULT.transforms()
    assert (theirs.size, theirs.eval_resize, list(theirs.mean)) == (look.crop_size[0], look.resize_size[0], look.mean)
    vit = library_data("timm/vit_base_patch16_224.augreg_in21k_ft_in1k")
    assert (vit.size, vit.eval_resize, vit.mean) == (224, 248, (0.5, 0.5, 0.5))  # crop 0.9, Inception's normalization


class Counting(nn.Module):
    """A module of a user's own, with BN and a buffer that every forward changes."""

    def __init__(self, shape: str = "map") -> None:
        super().__init__()
        self.conv, self.bn, self.shape = nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), shape
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> object:
        self.calls += 1
        y = self.bn(self.conv(x))
        return {
            "map": y, "tokens": y.flatten(2).transpose(1, 2), "features": y.mean(dim=(2, 3)),
            "tuple": (y, y), "labels": y.mean(dim=(2, 3)).argmax(dim=1), "one row": y.mean(dim=(0, 2, 3)),
        }[self.shape]  # fmt: skip


@pytest.mark.parametrize("shape", ["map", "tokens", "features"])
def test_a_users_module_gives_features_n_x_d(shape: str) -> None:
    network = Counting(shape)
    encoder = build(EncoderSpec(name="custom", dim=5), model=network, size=16).eval()
    x = torch.randn(2, 3, 16, 16)
    assert encoder.num_features == 7
    torch.testing.assert_close(encoder.features(x), network.bn(network.conv(x)).mean(dim=(2, 3)))
    assert encoder(x).shape == (2, 5)


def test_checking_a_module_does_not_change_it() -> None:
    network = Counting().train()
    network.bn.eval()  # a user's frozen BN
    before = copy.deepcopy(network.state_dict())
    build(EncoderSpec(name="custom"), model=network, size=16)
    assert network.training
    assert not network.bn.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("shape", ["tuple", "labels", "one row"])
def test_a_module_that_gives_no_features_is_refused(shape: str) -> None:
    with pytest.raises(RecipeError, match="features N x D"):
        build(EncoderSpec(name="custom"), model=Counting(shape), size=16)


def test_a_module_that_fails_is_refused_with_its_reason() -> None:
    with pytest.raises(RecipeError, match=r"your module does not take images of 2 x 2 pixels \(.*Kernel size"):
        build(EncoderSpec(name="custom"), model=Counting(), size=2)


def test_the_map_of_a_users_module_is_its_output() -> None:
    encoder = build(EncoderSpec(name="custom"), model=Counting(), size=16).eval()
    assert encoder.features(torch.zeros(2, 3, 16, 16), dense=True).shape == (2, 7, 14, 14)
    pooled = build(EncoderSpec(name="custom"), model=Counting("features"), size=16).eval()
    with pytest.raises(RecipeError, match="no feature map"):
        pooled.features(torch.zeros(2, 3, 16, 16), dense=True)
