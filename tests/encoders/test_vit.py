import copy
import math

import pytest
import timm
import torch
from torch import nn

from moco.encoders import build, build_headless
from moco.encoders.vit import VITS, ViT, recognise_vit, sincos, vit
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from moco.weights.export import export
from moco.weights.library_equivalent import library_equivalent
from moco.weights.load import WeightsError

TIMM = {
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "vit_huge": "vit_huge_patch14_224",
}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def stirred(network: ViT) -> ViT:
    """With biases, norms and positions away from where they start, so that leaving one out shows."""
    for parameter in network.parameters():
        if parameter.ndim == 1 or parameter is network.cls_token or parameter is network.pos_embed:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network.eval()


@pytest.mark.parametrize("name", TIMM)
def test_names_and_shapes_are_those_of_timm_without_its_head(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = vit(EncoderSpec(name=name)), timm.create_model(TIMM[name], num_classes=0)
    assert shapes(ours) == shapes(theirs)


MILLIONS = {"vit_small": 22, "vit_base": 86, "vit_large": 304, "vit_huge": 632}


@pytest.mark.parametrize("name", MILLIONS)
def test_the_number_of_parameters_is_that_of_table_2(name: str) -> None:
    with torch.device("meta"):
        network = vit(EncoderSpec(name=name))
    classes = 1000 * network.num_features + 1000  # in the table too, whose digits are cut off
    assert (sum(parameter.numel() for parameter in network.parameters()) + classes) // 1_000_000 == MILLIONS[name]


@pytest.mark.parametrize(("name", "size"), [("vit_small", 64), ("vit_micro", 32)])
def test_features_and_tokens_are_those_of_timm(name: str, size: int) -> None:
    spec, x = EncoderSpec(name=name), torch.randn(2, 3, size, size)
    ours, theirs = stirred(vit(spec, size=size)), library_equivalent(spec, "timm", size).build_headless().eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.dense(x), theirs.forward_features(x)[:, 1:], rtol=0, atol=1e-5)


def test_vit_small_with_timms_6_heads_gives_other_features() -> None:
    ours = stirred(vit(EncoderSpec(name="vit_small"), size=64))
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=64).eval()
    theirs.load_state_dict(ours.state_dict())  # silently
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().max() > 0.1


@pytest.mark.parametrize(("name", "width"), [("vit_conv_small", 384), ("vit_conv_base", 768)])
def test_a_convolutional_stem_has_the_layers_of_the_released_code(name: str, width: int) -> None:
    with torch.device("meta"):
        made = shapes(vit(EncoderSpec(name=name)))
    prefix = "patch_embed.proj."
    convolutions = {key: shape for key, shape in made.items() if key.startswith(prefix) and len(shape) == 4}
    w = [width // 8, width // 4, width // 2, width]
    assert convolutions == {
        f"{prefix}0.weight": (w[0], 3, 3, 3),
        f"{prefix}3.weight": (w[1], w[0], 3, 3),
        f"{prefix}6.weight": (w[2], w[1], 3, 3),
        f"{prefix}9.weight": (w[3], w[2], 3, 3),
        f"{prefix}12.weight": (width, width, 1, 1),
    }
    stem = {key.removeprefix(prefix).partition(".")[0] for key in made if key.startswith(prefix)}
    assert stem == {"0", "1", "3", "4", "6", "7", "9", "10", "12"}
    assert len({key.split(".")[1] for key in made if key.startswith("blocks.")}) == 11


def test_a_convolutional_stem_leaves_a_token_for_each_16_pixels() -> None:
    with torch.device("meta"):
        network = vit(EncoderSpec(name="vit_conv_small"), size=96)
    assert network.dense(torch.zeros(2, 3, 96, 96, device="meta")).shape == (2, 36, 384)


@pytest.mark.parametrize(("grid", "width"), [(14, 384), (4, 64)])
def test_positions_are_sines_and_cosines_of_row_and_column(grid: int, width: int) -> None:
    made = sincos(grid, width)[0].double()
    quarter = width // 4
    assert torch.equal(made[0], torch.zeros(width).double())  # the class token
    for row in range(grid):
        for column in range(grid):
            expected = [
                wave(place / 10_000 ** (i / quarter))
                for place in (row, column)
                for wave in (math.sin, math.cos)
                for i in range(quarter)
            ]
            one = made[1 + row * grid + column]
            torch.testing.assert_close(one, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_fixed_positions_are_in_the_state_dict_and_take_no_gradient() -> None:
    network = vit(EncoderSpec(name="vit_micro"), size=32)
    assert torch.equal(network.state_dict()["pos_embed"], sincos(4, 64))
    assert not network.pos_embed.requires_grad


def test_learned_positions_take_a_gradient() -> None:
    network = vit(EncoderSpec(name="vit_micro", position="learned"), size=32)
    assert network.pos_embed.requires_grad
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)


def test_without_positions_the_feature_does_not_depend_on_the_order_of_patches() -> None:
    x = torch.randn(1, 3, 32, 32)
    swapped = torch.cat([x[..., 16:], x[..., :16]], dim=3)  # whole patches change places
    for position, blind in (("none", True), ("sincos", False)):
        network = vit(EncoderSpec(name="vit_micro", position=position), size=32).eval()
        assert ((network(x) - network(swapped)).abs().max() < 1e-5) == blind


def test_weights_start_uniform_within_the_bounds_of_glorot() -> None:
    network = vit(EncoderSpec(name="vit_small"), size=32)
    width, seen = 384, 0
    bounds = {
        "attn.qkv": 6 / (width + width),  # q, k and v apart
        "attn.proj": 6 / (width + width),
        "mlp.fc1": 6 / (width + 4 * width),
        "mlp.fc2": 6 / (width + 4 * width),
        "proj": 6 / (3 * 16 * 16 + width),
    }
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = bounds[name.split(".", 2)[-1] if name.startswith("blocks") else "proj"] ** 0.5
            assert 0.99 * bound < module.weight.abs().max().item() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02), name
            assert not module.bias.any(), name
            seen += 1
    assert seen == 12 * 4 + 1


def test_the_class_token_starts_near_zero_and_norms_at_one_and_zero() -> None:
    network = vit(EncoderSpec(name="vit_base"), size=32)
    assert network.cls_token.std().item() == pytest.approx(1e-6, rel=0.2)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
            assert torch.equal(module.weight, torch.ones(768))
            assert not module.bias.any()


def test_only_a_frozen_patch_projection_takes_no_gradient() -> None:
    network = vit(EncoderSpec(name="vit_micro", freeze_patch=True), size=32)
    fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert fixed == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all((parameter.grad is None) == (name in fixed) for name, parameter in network.named_parameters())


def test_settings_that_a_convolutional_stem_does_not_have_are_refused() -> None:
    with pytest.raises(RecipeError, match="authors advise against freezing it"):
        vit(EncoderSpec(name="vit_conv_small", freeze_patch=True))
    with pytest.raises(RecipeError, match=r"patch must be left out.*got 8"):
        vit(EncoderSpec(name="vit_conv_small", patch=8))


def test_images_must_be_whole_patches() -> None:
    with pytest.raises(RecipeError, match=r"multiple of 16, got 100\. Set data\.size=96"):
        vit(EncoderSpec(name="vit_small"), size=100)
    with pytest.raises(RecipeError, match=r"multiple of 14, got 8\. Set data\.size=14"):
        vit(EncoderSpec(name="vit_huge"), size=8)


def test_images_of_another_size_than_it_was_built_for_are_refused() -> None:
    with pytest.raises(ValueError, match="32 x 32 pixels, got 64 x 64"):
        vit(EncoderSpec(name="vit_micro"), size=32)(torch.zeros(1, 3, 64, 64))


def test_a_vit_with_another_patch_size_has_other_tokens() -> None:
    network = vit(EncoderSpec(name="vit_micro", patch=4), size=32)
    assert network.dense(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 64)
    assert network.patch_embed.proj.weight.shape == (64, 3, 4, 4)


def test_an_encoder_gives_the_class_token_and_the_patch_tokens() -> None:
    encoder = build(EncoderSpec(name="vit_micro", head="projector3", hidden=16, dim=8), size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    assert encoder.num_features == 64
    assert torch.equal(encoder.features(x), encoder.backbone(x))
    assert encoder.features(x, dense=True).shape == (2, 16, 64)
    torch.testing.assert_close(encoder(x), encoder.head(encoder.backbone(x)))
    twin = copy.deepcopy(encoder)  # f_k
    assert torch.equal(twin(x), encoder(x))


RECOGNISED = [
    EncoderSpec(name="vit_small"),
    EncoderSpec(name="vit_small", patch=8),
    EncoderSpec(name="vit_base", position="learned"),
    EncoderSpec(name="vit_conv_small"),
    EncoderSpec(name="vit_micro", position="none"),
]


@pytest.mark.parametrize("spec", RECOGNISED, ids=lambda spec: f"{spec.name}-{spec.patch}-{spec.position}")
def test_a_vit_is_recognised_by_its_names_shapes_and_positions(spec: EncoderSpec) -> None:
    tensors = vit(spec, size=48).state_dict()
    assert recognise_vit(tensors) == spec
    assert recognise_vit(tensors | {"head.weight": torch.zeros(10, 4), "head.bias": torch.zeros(10)}) == spec
    del tensors["blocks.1.attn.qkv.bias"]
    assert recognise_vit(tensors) is None


@pytest.mark.parametrize("key", ["cls_token", "pos_embed", "patch_embed.proj.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 64), (64, 3, 0, 0), (1, 1, 64)])
def test_a_tensor_of_an_absurd_shape_is_not_recognised(key: str, shape: tuple[int, ...]) -> None:
    tensors = vit(EncoderSpec(name="vit_micro", position="learned"), size=32).state_dict()
    strange = tensors | {key: torch.zeros(shape)}
    same = strange[key].shape == tensors[key].shape
    assert (recognise_vit(strange) is not None) == same


@pytest.mark.parametrize("name", ["resnet18", "timm/vit_tiny_patch16_224"])
def test_other_networks_are_not_recognised_as_ours(name: str) -> None:
    assert recognise_vit(build_headless(EncoderSpec(name=name)).backbone.state_dict()) is None


def test_vit_small_is_exported_to_timm_with_12_heads(tmp_path) -> None:
    recipe = Recipe(name="made up", encoder=EncoderSpec(name="vit_small")).but(None, {"data.size": 64})
    encoder = build_headless(recipe.encoder, size=64)
    stirred(encoder.backbone)
    save_encoder(tmp_path / "encoder", encoder, recipe=recipe, facts={})
    said = export(tmp_path / "encoder", to="timm", out=tmp_path / "out.safetensors")
    assert 'timm.create_model("vit_small_patch16_224", num_heads=12, img_size=64)' in said
    file = str(tmp_path / "out.safetensors")
    arguments = {"num_heads": 12, "img_size": 64, "num_classes": 0}
    theirs = timm.create_model("vit_small_patch16_224", checkpoint_path=file, **arguments).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), encoder.eval().features(x), rtol=0, atol=1e-5)


EXPORTED = [EncoderSpec(name=name, patch=patch) for name in ("vit_base", "vit_micro") for patch in (None, 4)]
EXPORTED += [EncoderSpec(name="vit_large"), EncoderSpec(name="vit_huge"), EncoderSpec(name="vit_base", position="none")]


@pytest.mark.parametrize("spec", EXPORTED, ids=lambda spec: f"{spec.name}-{spec.patch}-{spec.position}")
def test_timms_counterpart_has_the_same_names_shapes_and_heads(spec: EncoderSpec) -> None:
    size = 28 if spec.name == "vit_huge" else 32
    with torch.device("meta"):
        ours, theirs = vit(spec, size=size), library_equivalent(spec, "timm", size).build_headless()
    assert shapes(ours) == shapes(theirs)
    assert theirs.blocks[0].attn.num_heads == VITS[spec.name].heads


@pytest.mark.parametrize(
    ("name", "library", "why"),
    [("vit_base", "torchvision", "other names"), ("vit_conv_small", "timm", "convolutional stem")],
)
def test_export_to_a_library_without_such_a_vit_says_why(name: str, library: str, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        library_equivalent(EncoderSpec(name=name), library, 224)
