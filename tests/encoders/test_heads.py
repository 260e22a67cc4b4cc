from functools import partial

import pytest
import torch
from torch import Tensor, nn

from moco.encoders.heads import HEADS, linear_head, mlp_head, predictor
from moco.recipe import EncoderSpec

BN = ("running_mean", "running_var", "num_batches_tracked")
SMALL = EncoderSpec(hidden=16, dim=4)
MADE = {name: partial(head, 6, SMALL) for name, head in HEADS.items()} | {
    "predictor mlp": partial(predictor, SMALL.model_copy(update={"dim": 6}), "mlp"),
    "predictor mlp_bn": partial(predictor, SMALL.model_copy(update={"dim": 6}), "mlp_bn"),
}


def shapes(module: nn.Module | None) -> dict[str, tuple[int, ...]]:
    assert module is not None
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def layer(number: int, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{number}.weight": (outputs, inputs)}


def bn(number: int, width: int, *, affine: bool = True) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", *BN) if affine else BN
    return {f"{number}.{name}": () if name == BN[2] else (width,) for name in names}


def test_the_linear_head_is_one_layer_with_a_bias() -> None:
    head = linear_head(512, EncoderSpec(dim=128))
    assert isinstance(head, nn.Linear)
    assert shapes(head) == {"weight": (128, 512), "bias": (128,)}


def test_the_mlp_head_has_as_many_hidden_units_as_features() -> None:
    expected = {"0.weight": (512, 512), "0.bias": (512,), "2.weight": (128, 512), "2.bias": (128,)}
    assert shapes(mlp_head(512, EncoderSpec(dim=128))) == expected


def test_the_mlp_head_is_linear_relu_linear_without_bn() -> None:
    head = mlp_head(6, EncoderSpec(dim=4))
    x, weights = torch.randn(3, 6), head.state_dict()
    hidden = (x @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    torch.testing.assert_close(head(x), hidden @ weights["2.weight"].T + weights["2.bias"])


def test_the_projector_of_a_resnet_has_the_layers_of_the_released_files() -> None:
    expected = layer(0, 4096, 2048) | bn(1, 4096) | layer(3, 256, 4096) | bn(4, 256, affine=False)
    with torch.device("meta"):
        assert shapes(HEADS["projector2"](2048, EncoderSpec(dim=256))) == expected


def test_the_projector_of_a_vit_has_the_layers_of_the_released_files() -> None:
    first = layer(0, 4096, 384) | bn(1, 4096) | layer(3, 4096, 4096) | bn(4, 4096)
    with torch.device("meta"):
        made = shapes(HEADS["projector3"](384, EncoderSpec(dim=256)))
    assert made == first | layer(6, 256, 4096) | bn(7, 256, affine=False)


def test_the_predictor_of_a_resnet_ends_without_bn() -> None:
    with torch.device("meta"):
        made = shapes(predictor(EncoderSpec(dim=256), "mlp"))
    assert made == layer(0, 4096, 256) | bn(1, 4096) | layer(3, 256, 4096)


def test_the_predictor_of_a_vit_ends_in_bn_without_weights() -> None:
    with torch.device("meta"):
        made = shapes(predictor(EncoderSpec(dim=256), "mlp_bn"))
    assert made == layer(0, 4096, 256) | bn(1, 4096) | layer(3, 256, 4096) | bn(4, 256, affine=False)


def test_the_predictor_none_is_the_identity() -> None:
    assert predictor(EncoderSpec(), "none") is None


def standardized(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()


def test_a_projector_repeats_linear_bn_relu() -> None:
    head = HEADS["projector3"](6, SMALL).double()
    x, weights = torch.randn(8, 6).double(), head.state_dict()
    hidden = standardized(x @ weights["0.weight"].T).clamp(min=0)
    hidden = standardized(hidden @ weights["3.weight"].T).clamp(min=0)
    torch.testing.assert_close(head(x), standardized(hidden @ weights["6.weight"].T))


@pytest.mark.parametrize("name", [name for name in MADE if "p" in name.partition(" ")[0][:1]])
def test_without_bn_a_head_has_none_and_its_layers_have_biases(name: str) -> None:
    with_bn = EncoderSpec(hidden=16, dim=6)
    spec = with_bn.model_copy(update={"head_bn": False})
    kind = name.partition(" ")[2]
    made, other = ((predictor(one, kind) if kind else HEADS[name](6, one)) for one in (spec, with_bn))
    count = sum(isinstance(module, nn.Linear) for module in other.modules())
    layers = [module for module in made.modules() if not isinstance(module, nn.Sequential)]
    assert [type(module) for module in layers] == ([nn.Linear, nn.ReLU] * count)[:-1]
    assert all(module.bias is not None for module in layers if isinstance(module, nn.Linear))


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_heads_do_not_normalize(name: str) -> None:
    x, made = torch.randn(3, 6), MADE[name]()
    assert not torch.allclose(made(10 * x).norm(dim=1), made(x).norm(dim=1), rtol=0.1)


@pytest.mark.parametrize("name", MADE)
def test_heads_start_with_the_weights_of_nn_linear_in_order(name: str) -> None:
    torch.manual_seed(3)
    linears = [module for module in MADE[name]().modules() if isinstance(module, nn.Linear)]
    torch.manual_seed(3)
    for one in linears:
        other = nn.Linear(one.in_features, one.out_features, bias=one.bias is not None)
        assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
