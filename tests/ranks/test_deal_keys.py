"""compute.deal_keys: the loader shuffles the views of the keys over the ranks, and no rank sends images."""

import json
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from run_ranks import Ranks

from moco.data.loader import view_maker
from moco.recipe import RecipeError
from moco.recipes import named
from moco.train.build import is_dealt
from moco.train.pretrain import pretrain
from tests.ranks.helpers import ended, on_two, same


@pytest.fixture
def four(tiny):
    return tiny.but("four", {"method.bn_groups": 4, "compute.threads": 1, "optim.epochs": 1})


@pytest.fixture
def dealt(four):
    return four.but("dealt", {"compute.deal_keys": True})


def sent(pictures, out, recipe) -> int:
    """Run on four ranks. Returns the bytes that rank 0 passes to exchanges between ranks, without gradients."""
    exchange, gather = dist.all_to_all_single, dist.all_gather
    count = 0

    def counted(collective):
        def call(output, given, *rest, **options):
            nonlocal count
            count += given.numel() * given.element_size()
            return collective(output, given, *rest, **options)

        return call

    def work(rank: int) -> None:
        pretrain(pictures, out, recipe=recipe, workers=0, max_bad=1, report=False)
        if rank == 0:
            (out / "sent.json").write_text(json.dumps(count))

    with mock.patch.multiple(dist, all_to_all_single=counted(exchange), all_gather=counted(gather)):
        assert Ranks(work, 4).wait() == [0] * 4
    return json.loads((out / "sent.json").read_text())


def test_the_run_has_the_bits_of_one_that_exchanges_images_and_sends_none(pictures, four, dealt, tmp_path):
    """The bytes differ by the views of the keys: N / 4 x 3 x S x S of float32 in each step."""
    steps = four.optim.total_steps(len(list(pictures.rglob("*.png"))))
    damaged = sorted(pictures.rglob("*.png"))[3]  # the same image replaces it on all ranks
    damaged.write_bytes(damaged.read_bytes()[:60])
    exchanged, not_exchanged = (sent(pictures, tmp_path / one.name, one) for one in (four, dealt))
    assert same(ended(tmp_path / "dealt"), ended(tmp_path / "four"))
    assert all(damaged.name in (tmp_path / name / "bad_images.csv").read_text() for name in ("four", "dealt"))
    views = four.optim.batch_size // 4 * 3 * four.data.size**2 * 4
    assert exchanged - not_exchanged == steps * views
    assert not_exchanged < steps * views

    with mock.patch("moco.train.plan_run.shuffled_order", lambda count, rng: torch.arange(count)):  # planted
        sent(pictures, tmp_path / "planted", dealt)
    assert not same(ended(tmp_path / "planted"), ended(tmp_path / "four"))


def test_an_image_that_another_rank_may_be_able_to_read_is_an_error(pictures, dealt, tmp_path, capfd):
    """Here one rank replaces it, and the others do not."""
    reader = view_maker.ViewMaker._read

    def read(self, epoch, index, *how):
        if self.first_view == 1 and index == 7:
            (pictures / self.images.names[index]).unlink(missing_ok=True)
        return reader(self, epoch, index, *how)

    with mock.patch.object(view_maker.ViewMaker, "_read", read):
        codes = on_two(pictures, tmp_path / "run", world=4, recipe=dealt, report=False)
    assert set(codes) != {0}
    assert "set compute.deal_keys=false" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize(
    "change",
    [{"method.bn": "split"}, {"method.key_encoder": "shared", "method.dictionary": "batch", "method.size": None}],
)
def test_recipes_without_shuffled_momentum_keys_are_refused(dealt, change):
    with pytest.raises(RecipeError, match=r"compute\.deal_keys"):
        dealt.but("wrong", change)


def test_a_symmetric_loss_is_refused():
    with pytest.raises(RecipeError, match=r"compute\.deal_keys"):
        named("moco_v3_r50_100").but("wrong", {"compute.deal_keys": True})


def test_one_rank_has_nothing_to_deal(dealt):
    assert not is_dealt(dealt)
