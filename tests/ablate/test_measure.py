"""The measures that may explain a score, against what they must be where that is known."""

import pytest
import torch
from torch import nn

from moco.ablate.measure import encode_apart, measures, middle, own_key_found
from moco.data.sources.open import open_images
from moco.diagnose.signals import lag
from moco.method import Contrast, MomentumEncoder, Queue
from moco.method.contrast import unit
from moco.train.pretrain import pretrain
from moco.train.restore_networks import build_untrained
from moco.train.run_folder import RunFolder

CPU = torch.device("cpu")


def measured(recipe, pictures, out, **more) -> dict[str, float]:
    run = pretrain(pictures, out, recipe=recipe, device="cpu", workers=0, save_every=5, **more)
    return measures(RunFolder(run.path), open_images(pictures), device=CPU, workers=0)


def test_keys_of_an_encoder_that_does_not_move_are_found_again(tiny, pictures, tmp_path):
    found = measured(tiny.but(None, {"optim.lr": 0.0, "method.size": 32}), pictures, tmp_path / "run")
    assert found["consistency"] == pytest.approx(1, abs=1e-5)
    assert found["stored"] == found["remade"]


def test_keys_of_an_encoder_that_moves_are_stale(tiny, pictures, tmp_path):
    changes = {"optim.lr": 0.5, "method.momentum": 0.0, "method.size": 32}
    assert measured(tiny.but(None, changes), pictures, tmp_path / "run")["consistency"] < 0.99


def test_keys_of_a_memory_bank_without_momentum_are_the_queries_that_are_made_again(tiny, pictures, tmp_path):
    changes = {
        "method.dictionary": "bank", "method.key_encoder": "none", "method.bn": "split", "method.bank_momentum": 0.0,
        "optim.lr": 0.0,
    }  # fmt: skip
    found = measured(tiny.but(None, changes), pictures, tmp_path / "run")
    assert found["consistency"] == pytest.approx(1, abs=1e-5)
    assert 0 < found["agreement"] < 0.999


def test_consistency_is_of_the_middle_of_the_run_where_that_was_saved(tiny, pictures, tmp_path):
    recipe = tiny.but(None, {"optim.lr": 0.5, "method.size": 32})
    with_middle = measured(recipe, pictures, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    middle(run, 10).unlink()
    without = measures(run, open_images(pictures), device=CPU, workers=0)
    assert with_middle["consistency"] != without["consistency"]
    assert with_middle["lag"] == without["lag"]


def test_loss_and_pretext_are_the_means_of_the_last_epoch(tiny, pictures, tmp_path):
    found = measured(tiny, pictures, tmp_path / "run")
    last = [record for record in RunFolder(tmp_path / "run").metrics() if record["step"] > 5]
    assert len(last) == 5
    assert found["loss"] == pytest.approx(sum(record["loss"] for record in last) / 5)
    assert found["pretext"] == pytest.approx(100 * sum(record["pretext_top1"] for record in last) / 5)


@pytest.mark.parametrize(("m", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.75, 0.75)])
def test_the_lag_is_the_share_of_the_way_that_f_k_is_behind(tiny, pictures, m, expected):
    images = open_images(pictures)
    now, at_first = (build_untrained(tiny, CPU, num_images=len(images)) for _ in range(2))
    assert isinstance(now.key_encoder, MomentumEncoder)
    with torch.no_grad():
        for parameter in now.encoder.parameters():
            parameter.add_(1.0)
    now.key_encoder.follow(now.encoder, m)
    assert lag(now.key_encoder.module, now.encoder, at_first.encoder) == pytest.approx(expected, abs=1e-5)


def test_own_keys_are_compared_with_those_of_other_images_only():
    torch.manual_seed(0)
    queue = Queue(6, 4)
    queue.ids.copy_(torch.tensor([0, 1, 2, 3, 9, 9]))
    q, ids = unit(torch.randn(5, 4)), torch.tensor([0, 1, 2, 3, 4])
    k = unit(q + torch.randn(5, 4))
    expected = 0
    for i in range(5):
        others = [float(q[i] @ queue.keys[j]) for j in range(6) if int(queue.ids[j]) != i]
        expected += float(q[i] @ k[i]) > max(others)
    assert 0 < expected < 5
    assert own_key_found(q, k, ids, queue.keys, queue.ids) == pytest.approx(20 * expected)


class Encoder(nn.Module):
    """An encoder of one linear layer, with BN or without."""

    def __init__(self, bn: bool):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8) if bn else nn.Identity())

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("bn", [False, True])
def test_mixing_mini_batches_changes_keys_by_their_bn_statistics_alone(bn):
    torch.manual_seed(0)
    encoder = Encoder(bn)
    contrast = Contrast(encoder, MomentumEncoder(encoder), Queue(16, 8), shuffle_bn=False)
    x = torch.randn(32, 3, 2, 2)
    with torch.no_grad():
        as_trained = torch.cat([contrast.encode_keys(part, torch.Generator()) for part in x.split(8)])
        apart = encode_apart(contrast, x, 8)
    assert torch.allclose(apart, as_trained, atol=1e-6) == (not bn)
