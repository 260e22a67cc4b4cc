import torch
from torch import nn

from moco.encoders.heads import HEADS, linear, mlp


def test_the_linear_head_is_one_layer_with_a_bias() -> None:
    head = linear(512, 128)
    assert isinstance(head, nn.Linear)
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == {
        "weight": (128, 512),
        "bias": (128,),
    }


def test_the_mlp_head_hides_as_many_units_as_there_are_features() -> None:
    shapes = {key: tuple(value.shape) for key, value in mlp(512, 128).state_dict().items()}
    assert shapes == {"0.weight": (512, 512), "0.bias": (512,), "2.weight": (128, 512), "2.bias": (128,)}


def test_the_mlp_head_is_linear_relu_linear_without_bn() -> None:
    head = mlp(6, 4)
    x, weights = torch.randn(3, 6), head.state_dict()
    hidden = (x @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    torch.testing.assert_close(head(x), hidden @ weights["2.weight"].T + weights["2.bias"])


def test_heads_do_not_normalize() -> None:
    x = torch.randn(3, 6)
    for head in HEADS.values():
        made = head(6, 4)
        assert not torch.allclose(made(10 * x).norm(dim=1), made(x).norm(dim=1), rtol=0.1)


def test_heads_start_with_the_weights_of_nn_linear() -> None:
    for head in HEADS.values():
        torch.manual_seed(3)
        made = head(64, 8)
        torch.manual_seed(3)
        layers = [nn.Linear(64, 8)] if len(made.state_dict()) == 2 else [nn.Linear(64, 64), nn.Linear(64, 8)]
        expected = [value for layer in layers for value in layer.state_dict().values()]
        assert all(torch.equal(one, other) for one, other in zip(made.state_dict().values(), expected, strict=True))
