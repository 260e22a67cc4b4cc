"""The queue that --init has filled is the same on every rank, and the one that a single process makes."""

import torch
from run_ranks import on_ranks

from moco import recipes
from moco.distributed import rank, world_size
from moco.method import Queue
from moco.train.build import contrast_for
from moco.train.warm_start import refill

RECIPE = recipes.named("demo").but(
    "small",
    {"encoder.width": 0.0625, "encoder.dim": 8, "data.size": 16, "method.size": 32, "optim.batch_size": 16},
)


def refilled(_: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and ids after a refill from 3 mini-batches, of which each rank has its share."""
    contrast = contrast_for(RECIPE, torch.device("cpu"), num_images=200, model=None, init=None, say=lambda _: None)

    def batches(steps: range):
        for step in steps:
            x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(step)).chunk(world_size())[rank()]
            yield [x, x], torch.arange(16 * step, 16 * step + 16).chunk(world_size())[rank()]

    refill(contrast, batches, RECIPE, steps_per_epoch=5)
    assert isinstance(contrast.dictionary, Queue)
    return contrast.dictionary.keys, contrast.dictionary.ids


def test_a_refilled_queue_is_that_of_one_process(tmp_path) -> None:
    keys, ids = refilled(0)
    assert ids.tolist() == list(range(48, 80))
    for theirs, owners in on_ranks(refilled, 2, tmp_path):
        assert torch.equal(owners, ids)
        torch.testing.assert_close(theirs, keys, rtol=1e-4, atol=1e-5)
