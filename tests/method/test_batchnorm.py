"""BN groups as virtual devices: statistics per group, running statistics as their mean."""

import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from moco.method.batchnorm import SyncBatchNorm, frozen_statistics, in_groups, synchronized


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_running_statistics_are_the_mean_over_the_groups_of_each_groups_update(groups):
    layer, x = nn.BatchNorm2d(3, dtype=torch.float64), torch.randn(16, 3, 5, 5, dtype=torch.float64)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    before_mean, before_var = layer.running_mean.clone(), layer.running_var.clone()
    in_groups(layer, x, range(groups), groups)
    parts = x.chunk(groups)
    mean = torch.stack([0.9 * before_mean + 0.1 * part.mean(dim=(0, 2, 3)) for part in parts]).mean(dim=0)
    var = torch.stack([0.9 * before_var + 0.1 * part.var(dim=(0, 2, 3), unbiased=True) for part in parts]).mean(dim=0)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, var)
    assert layer.momentum == 0.1


def test_a_backward_pass_may_come_after_the_running_statistics_have_been_set():
    layer, x = nn.BatchNorm1d(3, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    in_groups(layer, x, range(2), 2).pow(3).sum().backward()
    parts = [(part - part.mean(dim=0)) / (part.var(dim=0, unbiased=False) + layer.eps).sqrt() for part in x.chunk(2)]
    (expected,) = torch.autograd.grad(torch.cat(parts).pow(3).sum(), x)
    torch.testing.assert_close(x.grad, expected)


def test_a_compiled_network_is_compiled_once_for_all_groups():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network.compile(backend="eager")
    x = torch.randn(8, 3)
    in_groups(network, x[:2], range(1), 4)
    with torch.compiler.set_stance("fail_on_recompile"):
        in_groups(network, x[2:], range(1, 4), 4)


def test_each_group_is_normalized_with_its_own_statistics():
    layer, x = nn.BatchNorm1d(4, affine=False, eps=1e-12), torch.randn(12, 4)
    y = in_groups(layer, x, range(3), 3)
    for part in y.chunk(3):
        torch.testing.assert_close(part.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.var(dim=0, unbiased=False), torch.ones(4), atol=1e-4, rtol=0)


def test_groups_one_at_a_time_equal_groups_in_one_call():
    x = torch.randn(8, 3)
    one, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    whole = in_groups(one, x, range(2), 2)
    apart = torch.cat([in_groups(other, part, range(i, i + 1), 2) for i, part in enumerate(x.chunk(2))])
    assert torch.equal(whole, apart)
    assert torch.equal(one.running_var, other.running_var)


def test_unequal_groups_are_refused():
    with pytest.raises(ValueError, match="7 rows"):
        in_groups(nn.BatchNorm1d(3), torch.randn(7, 3), range(2), 2)


def test_running_statistics_can_be_frozen():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: x.clone() for name, x in module.state_dict().items()}
    x = torch.randn(8, 3)
    with frozen_statistics(module):
        y = module(x)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert torch.equal(y, module(x))  # computed with the same batch statistics
    assert not torch.equal(module[1].running_mean, before["1.running_mean"])


def test_a_synchronized_module_keeps_its_names_and_tensors_and_on_one_rank_its_outputs():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5), nn.BatchNorm1d(5, affine=False))  # fmt: skip  # noqa: E501
    x = torch.randn(6, 3, 5, 5)
    plain(x)
    sync = synchronized(copy.deepcopy(plain))
    assert isinstance(sync[1], SyncBatchNorm)
    assert list(sync.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in sync.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert torch.equal(sync(x), plain(x))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(sync.state_dict()[name], tensor), name


def test_timms_batch_norm_with_activation_is_synchronized_with_it():
    torch.manual_seed(0)
    plain = nn.Sequential(BatchNormAct2d(4, act_layer=nn.SiLU), nn.Conv2d(4, 3, 1), BatchNormAct2d(3, apply_act=False))
    x = torch.randn(6, 4, 5, 5)
    sync = synchronized(copy.deepcopy(plain))
    assert [isinstance(sync[i], SyncBatchNorm) for i in range(3)] == [True, False, True]
    assert list(sync.state_dict()) == list(plain.state_dict())
    assert torch.equal(sync(x), plain(x))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(sync.state_dict()[name], tensor), name


def test_a_layer_that_does_more_than_batch_norm_is_not_synchronized_silently(monkeypatch):
    """One rank sees the whole mini-batch: nothing is to be done. Several ranks would lose what the layer does."""

    class WithReLU(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).relu()

    module = nn.Sequential(WithReLU(3))
    assert type(synchronized(module)[0]) is WithReLU
    monkeypatch.setattr("moco.method.batchnorm.world_size", lambda: 2)
    with pytest.raises(ValueError, match="0 is a WithReLU, and only nn"):
        synchronized(module)
