"""The measurement of networks on a probe set: what it must be, and what it must not change."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures

from moco.data.check.distinct import measure_same_pictures, picture_signature
from moco.data.sources.open import open_images
from moco.diagnose.measure import bn_group_size, measure_signals, update_size
from moco.diagnose.probe import ProbeSet, make_probe
from moco.method.momentum import MomentumEncoder
from moco.recipe import DataSpec
from moco.train.optim import optimizer_for
from moco.train.restore_networks import build_untrained

CPU = torch.device("cpu")


def probe_of(pictures, tiny, count: int = 40):
    return make_probe(open_images(pictures), tiny.data, count=count, device=CPU, workers=0)


def test_the_probe_set_is_the_same_each_time_and_with_any_number_of_workers(pictures, tiny):
    one = probe_of(pictures, tiny)
    other = make_probe(open_images(pictures), tiny.data, count=40, device=CPU, workers=2)
    assert torch.equal(one.ids, other.ids)
    assert sorted(one.ids.tolist()) == list(range(40))
    for a, b in zip(one.views, other.views, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(*one.views)


def test_unreadable_images_are_replaced(pictures, tiny):
    (pictures / "0007.png").write_bytes(b"no picture")
    probe = probe_of(pictures, tiny)
    assert len(probe) == 40
    assert 7 not in probe.ids.tolist()


def test_copies_and_blank_pictures_are_counted_in_pairs():
    rng = np.random.default_rng(0)
    different = [rng.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(6)]
    blank = [np.full((32, 32, 3), 40 * i, dtype=np.uint8) for i in range(3)]
    same, share = measure_same_pictures(
        [picture_signature(one) for one in [*different, different[0], different[0], *blank, different[1]]]
    )
    assert same == pytest.approx((3 * 2 + 2 * 1 + 3 * 2) / (12 * 11))
    assert share == pytest.approx(3 / 12)


def test_the_number_of_different_pictures_is_estimated(tmp_path, tiny):
    make_pictures(tmp_path / "few", 8, side=32)
    for i in range(8):
        with Image.open(tmp_path / "few" / f"{i:04d}.png") as picture:
            for copy in range(1, 5):
                picture.save(tmp_path / "few" / f"{i:04d}-{copy}.png")
    contrast = build_untrained(tiny, CPU, num_images=40)
    found = measure_signals(contrast, probe_of(tmp_path / "few", tiny), batch=8, group=4)
    assert found.images == 40
    assert found.distinct == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize(
    ("blank", "copies", "expected"), [(0, 1, 80), (20, 1, 61), (40, 2, 21), (0, 4, 20), (80, 1, 1), (79, 1, 2)]
)
def test_blank_pictures_count_as_one_and_hide_no_others(blank: int, copies: int, expected: int):
    """80 images, all in the probe set: `blank` of one colour, the others in groups of `copies` equal ones."""
    others = 80 - blank
    pairs = blank * (blank - 1) + others * (copies - 1)
    view = torch.zeros(80, 3, 1, 1, dtype=torch.uint8)
    probe = ProbeSet((view, view), torch.arange(80), DataSpec(), 80, pairs / (80 * 79), blank / 80)
    assert probe.distinct == pytest.approx(expected, rel=0.06)


def test_measuring_changes_nothing(pictures, tiny, monkeypatch):
    contrast = build_untrained(tiny, CPU, num_images=40)
    contrast.dictionary.ids.fill_(3)
    probe = probe_of(pictures, tiny)
    before = {name: x.clone() for name, x in contrast.state_dict().items()}
    modes = [part.training for part in contrast.modules()]
    torch.manual_seed(5)
    numbers = torch.random.get_rng_state()
    for name in ("random", "randrange", "randint", "choice", "shuffle", "sample", "uniform"):
        monkeypatch.setattr(random, name, None)  # not its state: the checks of types in tests draw numbers, too
    found = measure_signals(contrast, probe, batch=8, group=4)
    assert torch.equal(numbers, torch.random.get_rng_state())
    assert modes == [part.training for part in contrast.modules()]
    assert all(torch.equal(x, before[name]) for name, x in contrast.state_dict().items())
    assert found == measure_signals(contrast, probe, batch=8, group=4)


def test_a_run_in_one_pass_is_measured_as_one_with_groups_in_turn(pictures, tiny):
    probe = probe_of(pictures, tiny)
    found = [
        measure_signals(
            build_untrained(tiny.but(None, {"compute.one_pass": one_pass}), CPU, num_images=40), probe, batch=8, group=4
        )
        for one_pass in (False, True)
    ]
    assert found[0] == found[1]


def test_all_signals_of_a_run_with_a_queue_are_measured(pictures, tiny):
    recipe = tiny.but(None, {"data.size": 32})  # at 16 pixels the feature map has one patch
    contrast = build_untrained(recipe, CPU, num_images=40)
    contrast.dictionary.ids.fill_(3)
    found = measure_signals(contrast, probe_of(pictures, recipe), batch=8, group=4, update=0.1)
    assert None not in found.to_dict().values()
    assert found.follows == pytest.approx(1, abs=1e-6)  # f_k is a copy of f_q
    assert found.keys == 20


def test_keys_of_equal_embeddings_are_a_collapse(pictures, tiny):
    contrast = build_untrained(tiny, CPU, num_images=40)
    for network in (contrast.encoder, contrast.key_encoder):
        assert network is not None
        for parameter in (network.module if isinstance(network, MomentumEncoder) else network).head.parameters():
            torch.nn.init.zeros_(parameter) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    found = measure_signals(contrast, probe_of(pictures, tiny), batch=8, group=4)
    assert found.spread == pytest.approx(0, abs=1e-6)
    assert found.found == 0
    assert found.rank == 0


def test_a_network_without_bn_has_no_leak(pictures, tiny):
    changes = {"encoder.name": "vit_micro", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0, "encoder.patch": 8,
               "method.bn": "plain", "encoder.head_bn": True}  # fmt: skip
    contrast = build_untrained(tiny.but(None, changes), CPU, num_images=40)
    assert measure_signals(contrast, probe_of(pictures, tiny), batch=8, group=8).own is None


@pytest.mark.parametrize(
    "changes",
    [
        {"method.dictionary": "bank", "method.key_encoder": "none", "method.bn": "split"},
        {"method.dictionary": "batch", "method.key_encoder": "shared", "method.size": None},
        {"method.dictionary": "batch", "method.size": None, "method.symmetric": True, "method.predictor": "mlp"},
    ],
)
def test_other_dictionaries_have_no_signals_of_the_queue(pictures, tiny, changes):
    recipe = tiny.but(None, changes)
    found = measure_signals(build_untrained(recipe, CPU, num_images=40), probe_of(pictures, tiny), batch=8, group=4)
    assert found.stored is None
    assert 0 <= found.found <= 1


@pytest.mark.parametrize(
    ("changes", "ranks", "expected"),
    [
        ({"method.bn": "shuffle", "method.bn_groups": 4}, 1, 2),
        ({"method.bn": "shuffle", "method.bn_groups": 4}, 2, 2),
        ({"method.bn": "plain"}, 1, 8),
        ({"method.bn": "plain"}, 2, 4),
        ({"method.bn": "sync"}, 2, 8),
    ],
)
def test_the_size_of_a_bn_group_is_that_of_training(tiny, changes, ranks, expected):
    assert bn_group_size(tiny.but(None, changes), ranks) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim.optimizer": "lars"},
        {"optim.optimizer": "adamw", "optim.weight_decay": 0.0},
    ],
)
def test_the_size_of_an_update_is_that_of_the_last_step(tiny, changes):
    recipe = tiny.but(None, changes)
    contrast = build_untrained(recipe, CPU, num_images=40)
    optimizer = optimizer_for(contrast, recipe.optim)
    trained = [x for x in contrast.parameters() if x.requires_grad]
    for step in range(3):
        before = [x.detach().clone() for x in trained]
        torch.manual_seed(step)
        for x in trained:
            x.grad = torch.randn_like(x)
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.step()
    change = torch.cat([(x - y).flatten() for x, y in zip(trained, before, strict=True)]).norm()
    expected = (change / torch.cat([x.flatten() for x in trained]).norm()).item()
    assert update_size(optimizer) == pytest.approx(expected, rel=1e-3)


def test_the_size_of_an_update_is_unknown_before_the_first_step(tiny):
    recipe = tiny.but(None, {"optim.optimizer": "adamw"})
    assert update_size(optimizer_for(build_untrained(recipe, CPU, num_images=40), recipe.optim)) is None
