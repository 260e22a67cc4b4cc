"""Small crops are further queries with the same keys, and a key may be the mean of several views (float64)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from moco.method import Batch, Contrast, MemoryBank, MomentumEncoder, Queue

TAU, N, K = 0.2, 8, 32


class Pooled(nn.Module):
    """A network for images of any size, with BN."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).mean(dim=(2, 3)))


def contrast(dictionary=None, **options):
    torch.manual_seed(0)
    encoder = Pooled().double()
    dictionary = Queue(K, 4).double() if dictionary is None else dictionary
    model = Contrast(
        encoder, MomentumEncoder(encoder), dictionary,
        **{"bn_groups": 2, "shuffle_bn": False, "temperature": TAU} | options,
    )  # fmt: skip
    for theta in model.key_encoder.parameters():
        theta.data.add_(0.1 * torch.randn_like(theta))
    return model


def views_of(*sizes):
    torch.manual_seed(1)
    return [torch.randn(N, 3, size, size, dtype=torch.float64) for size in sizes]


def run(model, views):
    """The loss of a step, its gradients, and the keys that the dictionary would take."""
    parts = model.parts(views, torch.arange(N), torch.Generator().manual_seed(0))
    answers = [model(part, torch.Generator().manual_seed(0)) for part in parts]
    loss = sum(answer.loss for answer in answers)
    loss.backward()
    taken = torch.cat([answer.k for answer in answers]), torch.cat([answer.ids for answer in answers])
    return loss.detach(), [theta.grad for theta in model.encoder.parameters()], taken


def embed(network, x, groups=2):
    """Each BN group by itself, of unit length."""
    return torch.cat([F.normalize(network(part), dim=1) for part in x.chunk(groups)])


def info_nce(q, k, keys):
    """Eqn. (1) as the paper writes it, averaged over the queries."""
    l_pos, l_neg = torch.exp((q * k).sum(dim=1) / TAU), torch.exp(q @ keys.T / TAU)
    return -torch.log(l_pos / (l_pos + l_neg.sum(dim=1))).mean()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("one_pass", [False, True])
def test_the_loss_is_the_mean_over_the_query_and_its_small_crops(symmetric, one_pass):
    sizes = (12, 12, 7, 7, 7)
    found, grads, (keys, ids) = run(contrast(symmetric=symmetric, one_pass=one_pass, bn_groups=1), views_of(*sizes))

    model, views = contrast(symmetric=symmetric, bn_groups=1), views_of(*sizes)
    with torch.no_grad():
        k = {b: embed(model.key_encoder, views[b], 1) for b in (1, 0)}
    expected = 0
    for a, b in [(0, 1), (1, 0)] if symmetric else [(0, 1)]:
        queries = [embed(model.encoder, views[a], 1), *embed(model.encoder, torch.cat(views[2:]), 1).chunk(3)]
        expected = expected + sum(info_nce(q, k[b], model.dictionary.keys) for q in queries) / 4
    expected.backward()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    for grad, theta in zip(grads, model.encoder.parameters(), strict=True):
        torch.testing.assert_close(grad, theta.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(keys, torch.cat([k[1], k[0]]) if symmetric else k[1])  # each key once
    assert torch.equal(ids, torch.arange(N).repeat(2 if symmetric else 1))


def test_small_crops_have_the_bn_groups_of_the_query():
    found, _, _ = run(contrast(), views_of(12, 12, 7, 7))
    model, views = contrast(), views_of(12, 12, 7, 7)
    with torch.no_grad():
        k = embed(model.key_encoder, views[1])
        groups = [torch.cat(rows) for rows in zip(views[2].chunk(2), views[3].chunk(2), strict=True)]
        both = [F.normalize(model.encoder(x), dim=1).chunk(2) for x in groups]
        small = [torch.cat([group[crop] for group in both]) for crop in range(2)]
        expected = sum(info_nce(q, k, model.dictionary.keys) for q in (embed(model.encoder, views[0]), *small)) / 3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_in_batch_keys_are_compared_with_small_crops_too():
    """MoCo v3: the keys of the mini-batch, in one part."""
    found, _, _ = run(contrast(Batch(), symmetric=True, bn_groups=1), views_of(12, 12, 7, 7))
    model, views = contrast(Batch(), symmetric=True, bn_groups=1), views_of(12, 12, 7, 7)
    with torch.no_grad():
        k = {b: embed(model.key_encoder, views[b], 1) for b in (0, 1)}
        small = embed(model.encoder, torch.cat(views[2:]), 1).chunk(2)
        terms = [
            F.cross_entropy(q @ k[b].T / TAU, torch.arange(N))
            for a, b in ((0, 1), (1, 0)) for q in (embed(model.encoder, views[a], 1), *small)
        ]  # fmt: skip
    torch.testing.assert_close(found, sum(terms) / 3, rtol=1e-12, atol=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_key_of_several_views_is_their_mean_of_unit_length(symmetric):
    _, _, (keys, _) = run(contrast(key_views=3, symmetric=symmetric), views_of(12, 12, 12, 12, 7))
    model, views = contrast(), views_of(12, 12, 12, 12, 7)
    with torch.no_grad():
        k = [embed(model.key_encoder, x) for x in views]
    expected = [F.normalize((k[b] + k[2] + k[3]) / 3, dim=1) for b in ([1, 0] if symmetric else [1])]
    torch.testing.assert_close(keys, torch.cat(expected), rtol=1e-12, atol=0)


def test_with_shuffling_bn_the_mean_is_of_keys_of_the_same_image():
    """In evaluation mode BN does not look at other images, so shuffling must change nothing."""
    model = contrast(key_views=2, shuffle_bn=True).eval()
    views = views_of(12, 12, 12)
    keys = model.momentum_keys(views, torch.Generator().manual_seed(3))[1]
    expected = F.normalize(sum(F.normalize(model.key_encoder(x), dim=1) for x in views[1:]), dim=1)
    torch.testing.assert_close(keys, expected)


def test_without_further_views_the_random_numbers_are_those_of_before():
    """Further keys are shuffled after those of the pair, so the key of x_k is the one that it has without them."""
    with_further, without = contrast(key_views=2, shuffle_bn=True), contrast(shuffle_bn=True)
    views = views_of(12, 12, 12)
    alone = without.momentum_keys(views[:2], torch.Generator().manual_seed(3))[1]
    rng = torch.Generator().manual_seed(3)
    both = with_further.momentum_keys(views, rng)[1]
    second = contrast(shuffle_bn=True).encode_keys(views[2], _after(alone, views[1]))
    torch.testing.assert_close(both, F.normalize((alone + second) / 2, dim=1))


def _after(_, x):
    """The generator after one shuffle."""
    rng = torch.Generator().manual_seed(3)
    contrast(shuffle_bn=True).encode_keys(x, rng)
    return rng


def test_a_memory_bank_ignores_further_views():
    torch.manual_seed(0)
    encoder = Pooled().double()
    bank = MemoryBank(N, 16, 4).double()
    model = Contrast(encoder, None, bank, bn_groups=2, shuffle_bn=False)
    parts = model.parts(views_of(12), torch.arange(N), torch.Generator().manual_seed(0))
    assert len(parts) == 2
