"""A run whose number of ranks changes inside an epoch."""

import hashlib
import json
import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from sample_pictures import make_pictures

from moco.data.loader.loader import ViewLoader
from moco.recipe import Recipe
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from tests.ranks.helpers import AtStep, ended, kill, on_two, same

PICTURES, EPOCH = 80, 5  # steps of 16 images
STARTS = ((4, 3), (2, 7), (1, 10))  # the number of ranks, and the step after which they stop


class Part(NamedTuple):
    """A rank's share of a mini-batch."""

    ranks: int
    step: int
    rank: int
    ids: list[int]
    views: list[str]  # a hash of the views of each image


@pytest.fixture
def recipe(recipe) -> Recipe:
    """For four ranks. With fewer images in a BN group, rounding grows too fast to compare losses."""
    changes = {"method.bn_groups": 4, "method.size": 32, "optim.batch_size": 16, "encoder.dim": 16}
    return recipe.but("elastic", changes)


@pytest.fixture
def pictures(tmp_path) -> Path:
    return make_pictures(tmp_path / "pictures", PICTURES)


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """A file to which each rank appends its share of the mini-batch of each step that it trains on."""
    file, iterate = tmp_path / "parts.jsonl", ViewLoader.__iter__

    def logged(loader: ViewLoader) -> Iterator:
        world, of_rank = loader.sampler.batch_size // len(loader.sampler.share), loader.sampler.share.start
        for step, (views, ids) in zip(loader.sampler.steps, iterate(loader), strict=True):
            rows = zip(*(torch.as_tensor(view).contiguous() for view in views), strict=True)
            hashes = [hashlib.sha256(b"".join(x.numpy().tobytes() for x in row)).hexdigest() for row in rows]
            part = Part(world, step, of_rank // len(loader.sampler.share), ids.tolist(), hashes)
            with file.open("a") as opened:
                opened.write(json.dumps(part) + "\n")
            yield views, ids

    monkeypatch.setattr(ViewLoader, "__iter__", logged)
    return file


def taken(log: Path) -> list[Part]:
    """The parts in the order of steps and ranks."""
    parts = [Part(*json.loads(line)) for line in log.read_text().splitlines()]
    log.unlink()
    return sorted(parts, key=lambda part: (part.step, part.rank))


def mini_batches(parts: list[Part]) -> list[tuple[list[int], list[str]]]:
    """The ids and views of each step, of all ranks together."""
    steps = sorted({part.step for part in parts})
    of_step = [[part for part in parts if part.step == step] for step in steps]
    return [
        (list(chain(*(part.ids for part in some))), list(chain(*(part.views for part in some)))) for some in of_step
    ]


def test_a_run_on_4_then_2_ranks_then_1_covers_each_image_of_an_epoch_once_in_the_same_mini_batches(
    pictures, recipe, tmp_path, log
):
    out = tmp_path / "run"
    for world, last in STARTS:
        stop = lambda _, last=last: {"reporter": AtStep(last, kill(signal.SIGTERM))}  # noqa: E731
        codes = on_two(pictures, out, recipe=recipe, of_rank=stop, world=world, report=False)  # it makes views too
        assert codes == [0 if last == 2 * EPOCH else 75] * world
    parts = taken(log)
    assert [(part.ranks, part.step, part.rank) for part in parts] == [
        (world, step, number)
        for step in range(2 * EPOCH)
        for world in [next(world for world, last in STARTS if step < last)]
        for number in range(world)
    ]
    changed = mini_batches(parts)
    for epoch in (changed[:EPOCH], changed[EPOCH:]):
        assert sorted(chain(*(ids for ids, _ in epoch))) == list(range(PICTURES))

    pretrain(pictures, tmp_path / "whole", recipe=recipe, workers=0, report=False)
    assert mini_batches(taken(log)) == changed  # images, their order and every bit of their views
    one, whole = (ended(folder)["state"]["model"] for folder in (out, tmp_path / "whole"))
    assert torch.equal(one["dictionary.ids"], whole["dictionary.ids"])  # the queue: the same images in the same order
    torch.testing.assert_close(one["dictionary.keys"], whole["dictionary.keys"], rtol=0, atol=1e-2)
    losses = [[record["loss"] for record in RunFolder(folder).metrics()] for folder in (out, tmp_path / "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_on_four_ranks_resumes_bit_for_bit(pictures, recipe, tmp_path):
    """With two ranks the order of a sum does not matter."""
    assert on_two(pictures, tmp_path / "whole", recipe=recipe, world=4, report=False) == [0] * 4
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM)), "report": False}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=4, of_rank=stop) == [75] * 4
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=4, report=False) == [0] * 4
    assert same(ended(tmp_path / "whole"), ended(tmp_path / "run"))


def test_a_number_of_ranks_that_does_not_divide_the_mini_batch_is_refused_and_the_run_goes_on_with_another(
    pictures, recipe, tmp_path, capfd
):
    out = tmp_path / "run"
    stop = lambda _: {"reporter": AtStep(3, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, out, recipe=recipe, of_rank=stop, world=2) == [75, 75]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert on_two(pictures, out, recipe=recipe, world=3) == [2, 2, 2]
    assert "must be multiples of the 3 ranks" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert on_two(pictures, out, recipe=recipe, world=1) == [0]
