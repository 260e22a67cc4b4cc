"""Every mechanism on several ranks is what it is in one process with as many BN groups, in float64."""

from functools import partial

import pytest
import torch
from run_ranks import on_ranks
from torch import nn

from moco.distributed import rank, world_size
from moco.method import Batch, CachedContrast, Contrast, MomentumEncoder
from tests.ranks import mechanisms
from tests.ranks.mechanisms import (
    MECHANISMS,
    N,
    as_a_set,
    batches,
    end_to_end,
    symmetric_queue,
    trained,
    two_encoders,
    unshuffled,
)


@pytest.mark.parametrize("make", MECHANISMS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("world", "groups"), [(2, 2), (4, 4), (2, 4)])
def test_ranks_compute_what_one_process_does_with_their_bn_groups(tmp_path, make, world, groups):
    expected, results = trained(make, groups), on_ranks(lambda _: trained(make, groups), world, tmp_path)
    if make is symmetric_queue:
        expected, results = as_a_set(expected), [as_a_set(result) for result in results]
    assert any(name.startswith("grad.") for name in expected)
    for result in results:
        assert result.keys() == expected.keys()
        for name, x in expected.items():
            torch.testing.assert_close(result[name], x, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("make", MECHANISMS, ids=lambda make: make.__name__)
def test_all_ranks_end_with_the_same_bits_although_their_seeds_differ(tmp_path, make):
    """After 20 steps in float32: weights, momentum encoder, queue or bank, and NCE's Z."""
    ids = torch.cat([ids for _, ids in batches(20, torch.float32)])
    assert any(len(some.unique()) < N for some in ids.split(N)), "an image is on two ranks at once"
    first, *others = on_ranks(lambda r: trained(make, 4, steps=20, seed=r, dtype=torch.float32), 4, tmp_path)
    for other in others:
        for name, x in first.items():
            assert torch.equal(other[name], x), name


@pytest.mark.parametrize("make", [end_to_end, two_encoders, unshuffled], ids=lambda make: make.__name__)
def test_a_mini_batch_in_pieces_on_ranks_has_the_gradient_of_the_whole_in_one_process(tmp_path, make, monkeypatch):
    expected = trained(make, 4)
    monkeypatch.setattr(mechanisms, "Contrast", partial(CachedContrast, pieces=2))
    for result in on_ranks(lambda _: trained(make, 4), 2, tmp_path):
        for name, x in expected.items():
            if "running" not in name:  # where queries and keys share an encoder, they come to it in another order
                torch.testing.assert_close(result[name], x, rtol=1e-9, atol=1e-11)


def test_the_comparison_detects_keys_whose_gradient_stays_on_their_rank(tmp_path, monkeypatch):
    """A planted fault: the usual gather, which does not bring the other ranks' gradients home."""
    expected = trained(end_to_end, 2)

    def gather_without_gradient(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rows = honest(x)
        each = rows.shape[0] // world_size()
        return torch.cat([rows[: rank() * each], x, rows[(rank() + 1) * each :]])

    from moco.method import dictionaries

    honest = dictionaries.gather
    monkeypatch.setattr(dictionaries, "gather", gather_without_gradient)
    result, _ = on_ranks(lambda _: trained(end_to_end, 2), 2, tmp_path)
    name = "grad.encoder.8.weight"
    assert not torch.allclose(result[name], expected[name], rtol=1e-3)


def test_the_loss_and_the_statistics_are_those_of_the_shuffled_groups(tmp_path):
    """Against the equations, on two ranks: the keys of a rank are normalized with whom they were dealt out to."""
    layer = nn.BatchNorm1d(4, affine=False).double()
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    hands = [x[hand] for hand in order.view(2, 4)]
    expected = torch.empty_like(x)  # 8 x 4
    for hand, rows in zip(order.view(2, 4), hands, strict=True):
        whitened = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + layer.eps).sqrt()
        expected[hand] = nn.functional.normalize(whitened, dim=1)

    def keys(number: int) -> torch.Tensor:
        contrast = Contrast(nn.Identity(), MomentumEncoder(nn.Sequential(nn.Flatten(), layer)), Batch())
        share = x[4 * number : 4 * number + 4, :, None, None]
        return contrast.encode_keys(share, torch.Generator().manual_seed(2))

    torch.testing.assert_close(torch.cat(on_ranks(keys, 2, tmp_path)), expected)
