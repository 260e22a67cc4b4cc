"""One pass over all BN groups computes what one pass for each group does."""

import copy

import pytest
import torch
from torch import Tensor, nn

from moco.method import Contrast, grouped
from moco.method.batchnorm import GroupedBatchNorm, frozen_statistics, in_groups
from tests.ranks.mechanisms import MECHANISMS, queue, trained, v3

WAYS = {"by group": GroupedBatchNorm._by_group, "in one kernel": GroupedBatchNorm._in_one_kernel}
LAYERS = {
    "1d": (nn.BatchNorm1d, {}, (12, 5)), "2d": (nn.BatchNorm2d, {"momentum": 0.3}, (12, 5, 4, 3)),
    "2d without weights": (nn.BatchNorm2d, {"affine": False}, (12, 5, 4, 3)),
    "2d without running statistics": (nn.BatchNorm2d, {"track_running_stats": False}, (12, 5, 4, 3)),
}  # fmt: skip


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the compiler or not: both ways in turn."""
    monkeypatch.setattr(GroupedBatchNorm, "_by_group", WAYS[request.param])


def made(layer: str) -> tuple[nn.Module, Tensor]:
    kind, settings, shape = LAYERS[layer]
    torch.manual_seed(0)
    network = nn.Sequential(kind(5, **settings)).double()
    for x in (*network.parameters(), *(x for x in network.buffers() if x.is_floating_point())):
        nn.init.uniform_(x, 0.5, 2)
    return network, torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layer", LAYERS)
def test_outputs_gradients_and_running_statistics_are_those_of_the_groups_in_turn(layer):
    in_turn, x = made(layer)
    at_once = grouped(copy.deepcopy(in_turn), 4)
    assert at_once is not None
    outputs = in_groups(in_turn, x, range(4), 4), at_once(x)
    torch.testing.assert_close(outputs[1], outputs[0])
    gradients = [
        torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])
        for y, layer in zip(outputs, (in_turn, at_once), strict=True)
    ]
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(at_once.state_dict(), in_turn.state_dict())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("make", [make for make in MECHANISMS if make is not v3], ids=lambda make: make.__name__)
@pytest.mark.parametrize("groups", [2, 4])
def test_training_is_that_of_the_groups_in_turn(make, groups):
    expected = trained(make, groups)
    found = trained(lambda count: in_one_pass(make(count), count), groups)
    assert expected.keys() == found.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


def test_another_number_of_groups_is_detected():
    expected = trained(queue, 4)
    found = trained(lambda count: in_one_pass(queue(count), 2), 4)
    assert not torch.allclose(found["losses"], expected["losses"], rtol=1e-6)


def in_one_pass(contrast: Contrast, groups: int) -> Contrast:
    assert grouped(contrast, groups) is not None
    contrast.one_pass = True
    return contrast


def test_frozen_statistics_stay():
    network, x = made("2d")
    network = grouped(network, 4)
    assert network is not None
    before = copy.deepcopy(network.state_dict())
    with frozen_statistics(network):
        network(x)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_evaluation_uses_the_running_statistics():
    network, x = made("2d")
    expected = network.eval()(x)
    network = grouped(network, 4)
    assert network is not None
    assert torch.equal(network(x[:3]), expected[:3])  # any number of rows


def test_rows_that_do_not_divide_are_refused():
    network, x = made("2d")
    network = grouped(network, 4)
    assert network is not None
    with pytest.raises(ValueError, match="10 rows do not divide into 4 BN groups"):
        network(x[:10])


class Own(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize("layer", [Own(3), nn.BatchNorm2d(3, momentum=None)])
def test_a_network_with_other_layers_is_left_as_it_is(layer):
    network = nn.Sequential(nn.BatchNorm2d(3), layer)
    assert grouped(network, 2) is None
    assert type(network[0]) is nn.BatchNorm2d
