"""data.order=shards on real shards: the sampler's images with the bits of a folder, read ahead by whole windows."""

import os

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures

from moco import pretrain
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.loader.shard_order import ShardOrder
from moco.data.shards.pack import pack
from moco.data.shards.shards import GAP, Shards
from moco.data.sources.images import DataError
from moco.data.sources.open import open_images
from moco.recipe import DataSpec, RecipeError, View
from moco.train.stop_on_signals import Stopped
from tests.train.helpers import StopAt

DATA = DataSpec(size=16, eval_resize=16, views=(View(), View(blur=0.3)), order="shards")


@pytest.fixture
def images(tmp_path):
    return open_images(make_pictures(tmp_path / "images", 60, side=40))


@pytest.fixture
def shards(images, tmp_path):
    pack(images, tmp_path / "shards", shard_size=16)
    return open_images(tmp_path / "shards")


def batches_of(images, data=DATA, **options) -> list:
    settings = {"batch_size": 12, "seed": 3, "steps": range(7), "workers": 0, "device": torch.device("cpu")} | options
    return list(ViewLoader(images, data, quarantine=Quarantine(None, 0, len(images)), **settings))


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "processes": True}], ids=str)
def test_mini_batches_are_those_of_the_order_with_the_views_of_the_folder(images, shards, options):
    assert shards.counts.tolist() == [16, 16, 16, 12]
    order = ShardOrder([16, 16, 16, 12], 3)
    made = batches_of(shards, **options)
    for step, batch in enumerate(made):
        epoch, place = divmod(step, 5)
        assert batch.ids.tolist() == order.images_at(np.arange(12 * place, 12 * place + 12), epoch).tolist()
    uniform = DATA.model_copy(update={"order": "uniform"})
    views = {}  # of an image in an epoch, whatever the order
    for step, batch in enumerate(batches_of(images, uniform, steps=range(5))):
        views |= {(step // 5, int(one)): [view[i] for view in batch.views] for i, one in enumerate(batch.ids)}
    for batch in made[:5]:
        for i, one in enumerate(batch.ids):
            assert all(map(torch.equal, (view[i] for view in batch.views), views[0, int(one)]))


def test_images_that_follow_each_other_are_read_ahead_with_one_request(shards: Shards, monkeypatch):
    asked: list[tuple[str, int, int]] = []

    def note(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((os.readlink(f"/proc/self/fd/{descriptor}"), start, start + length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    shards.read_ahead(np.array([5, 4, 6, 15, 16, 17, 40]))  # 15 is the last one of a shard
    records = shards.index.records
    assert all(records["offset"][i + 1] - records["offset"][i] < GAP for i in (4, 5, 16))
    expected = [(4, 6), (15, 15), (16, 17), (40, 40)]
    assert asked == [
        (
            os.path.realpath(shards.shards[first // 16]), int(records["offset"][first]),
            int(records["offset"][last] + records["size"][last]),
        )
        for first, last in expected
    ]  # fmt: skip


def test_only_this_order_reads_ahead_and_a_shard_that_is_gone_is_no_error_then(shards: Shards, monkeypatch):
    asked = []
    monkeypatch.setattr(shards, "read_ahead", lambda ids: asked.append(ids.tolist()))
    made = batches_of(shards)
    assert asked == [batch.ids.tolist() for batch in made]
    batches_of(shards, DATA.model_copy(update={"order": "uniform"}))
    assert len(asked) == len(made)
    monkeypatch.undo()
    shards.shards[0].unlink()
    shards.read_ahead(np.arange(60))


def test_a_folder_has_no_such_order(images, tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"moco pack DATA"):
        pretrain(tmp_path / "images", tmp_path / "run", recipe=tiny, settings={"data.order": "shards"}, device="cpu")


def test_a_stopped_run_resumes_with_the_same_bits_and_not_on_shards_of_other_sizes(images, shards, tiny, tmp_path):
    pack(images, tmp_path / "other", shard_size=20)

    def run(data: str, out: str, **options) -> list:
        settings = {"data.order": "shards"}
        made = pretrain(
            tmp_path / data, tmp_path / out, recipe=tiny, settings=settings, device="cpu", workers=0, **options
        )
        return [record["loss"] for record in made.metrics() if "loss" in record]

    whole = run("shards", "whole")
    with pytest.raises(Stopped):
        run("shards", "stopped", reporter=StopAt(4))
    with pytest.raises(DataError, match="shards of other sizes"):
        run("other", "stopped")
    assert run("shards", "stopped") == whole
    assert len(whole) > 4
