"""Who encodes what with which statistics, and that nobody can cheat."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from moco.method import Batch, Contrast, MomentumEncoder, Queue


def net(c: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


def contrast(**options) -> Contrast:
    torch.manual_seed(0)
    encoder = net()
    return Contrast(encoder, MomentumEncoder(encoder), Queue(32, 4), **{"bn_groups": 2} | options)


def test_key_encoder_begins_as_a_copy_of_the_query_encoder_and_takes_no_gradient():
    model = contrast()
    for theta_q, theta_k in zip(model.encoder.parameters(), model.key_encoder.module.parameters(), strict=True):
        assert torch.equal(theta_q, theta_k)
        assert theta_q.data_ptr() != theta_k.data_ptr()
        assert theta_q.requires_grad
        assert not theta_k.requires_grad


def test_momentum_update_moves_parameters_by_eqn_2_and_leaves_buffers():
    model = contrast()
    before = copy.deepcopy(model.key_encoder.module.state_dict())
    for parameter in model.encoder.parameters():
        parameter.data.normal_()
    model.encoder[1].running_mean.fill_(7.0)
    model.follow(0.9)
    for name, theta_k in model.key_encoder.module.named_parameters():
        expected = 0.9 * before[name] + 0.1 * dict(model.encoder.named_parameters())[name]
        torch.testing.assert_close(theta_k, expected)
    assert torch.equal(model.key_encoder.module[1].running_mean, before["1.running_mean"])


def test_unshuffled_keys_belong_to_their_own_images():
    model = contrast(
        bn_groups=4
    ).eval()  # eval: BN does not look at its neighbours, so keys must equal f_k(x) row by row
    x = torch.randn(8, 3, 8, 8)
    keys = model.encode_keys(x, torch.Generator().manual_seed(3))
    torch.testing.assert_close(keys, F.normalize(model.key_encoder(x), dim=1))


def test_shuffling_gives_keys_other_batch_statistics_than_their_queries():
    x, rng = torch.randn(8, 3, 8, 8), torch.Generator().manual_seed(1)
    plain = contrast(shuffle_bn=False).encode_keys(x, rng)
    shuffled = contrast(shuffle_bn=True).encode_keys(x, rng)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    model = contrast()
    expected = torch.cat([model.key_encoder(part) for part in x[order].chunk(2)])[order.argsort()]
    torch.testing.assert_close(shuffled, F.normalize(expected, dim=1))
    assert not torch.allclose(plain, shuffled)


def test_one_bn_group_with_shuffling_is_refused():
    with pytest.raises(ValueError, match="does nothing"):
        contrast(bn_groups=1)


def test_one_bn_group_without_shuffling_is_allowed():
    contrast(bn_groups=1, shuffle_bn=False)


def test_losses_of_the_parts_add_up_to_the_loss_of_the_mini_batch():
    model, views, ids = contrast(temperature=0.2), [torch.randn(8, 3, 8, 8) for _ in range(2)], torch.arange(8)
    parts = model.parts(views, ids, torch.Generator().manual_seed(0))
    answers = [model(part, torch.Generator()) for part in parts]
    q = torch.cat([F.normalize(contrast().encoder(x), dim=1) for x in views[0].chunk(2)])
    logits = torch.cat(
        [(q * torch.cat([part.k for part in parts])).sum(1, keepdim=True), q @ model.dictionary.keys.T], 1
    )
    expected = F.cross_entropy(logits / 0.2, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(sum(answer.loss for answer in answers), expected)


def test_a_symmetric_loss_is_the_sum_of_both_directions_and_makes_both_views_keys():
    model, views, ids = contrast(symmetric=True), [torch.randn(8, 3, 8, 8) for _ in range(2)], torch.arange(8)
    parts = model.parts(views, ids, torch.Generator().manual_seed(0))
    assert sum(part.weight for part in parts) == pytest.approx(2.0)
    assert torch.equal(torch.cat([part.x_q for part in parts]), torch.cat(views))
    assert torch.equal(torch.cat([part.x_k for part in parts]), torch.cat(views[::-1]))


def test_in_batch_keys_keep_the_mini_batch_in_one_part_with_its_bn_groups():
    torch.manual_seed(0)
    encoder = net()
    model = Contrast(encoder, encoder, Batch(), bn_groups=2)
    views = [torch.randn(8, 3, 8, 8) for _ in range(2)]
    (part,) = model.parts(views, torch.arange(8), torch.Generator())
    assert part.k is None
    answer = model(part, torch.Generator().manual_seed(0))
    answer.loss.backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_batch_that_does_not_divide_into_bn_groups_is_refused():
    with pytest.raises(ValueError, match="7 does not divide"):
        contrast().parts([torch.randn(7, 3, 8, 8)] * 2, torch.arange(7), torch.Generator())


def test_batch_statistics_leak_the_positive_without_shuffling_and_not_with_it():
    """Sec. 3.3: queries and keys of one BN group share a signature, so a query can find its key without looking at it.

    Planted: an encoder that passes on nothing but the mean of its group. Where the groups are the same for queries and
    keys, it finds every key; where the keys were dealt out anew, it does not.
    """

    class MeanOfTheGroup(nn.Module):
        def forward(self, x):
            return x.mean(dim=0, keepdim=True).flatten(1).expand(len(x), -1)

    signature, x = MeanOfTheGroup(), torch.randn(16, 3, 2, 2)
    similarity = {}
    for shuffled in (False, True):
        model = Contrast(signature, MomentumEncoder(signature), Queue(8, 12), shuffle_bn=shuffled, bn_groups=4)
        parts = model.parts([x, x], torch.arange(16), torch.Generator().manual_seed(0))
        q = torch.cat([F.normalize(signature(part.x_q), dim=1) for part in parts])
        similarity[shuffled] = (q * torch.cat([part.k for part in parts])).sum(dim=1).mean().item()
    assert similarity[False] == pytest.approx(1.0, abs=1e-6)
    assert similarity[True] < 0.8


def test_loss_and_keys_are_float32_under_autocast():
    model, views = contrast(), [torch.randn(8, 3, 8, 8) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        part = model.parts(views, torch.arange(8), torch.Generator().manual_seed(0))[0]
        answer = model(part, torch.Generator())
    assert part.k.dtype == answer.loss.dtype == answer.k.dtype == torch.float32
