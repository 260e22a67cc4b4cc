"""The number of ranks to start, their BN statistics and bad images, and a check that they have the same images."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.images import DataError, Images
from moco.data.sources.manifest import Manifest
from moco.distributed import everyone, gather, on_main, rank, requested_ranks, world_size
from moco.recipe import RecipeError
from moco.train.options import count_of_devices


def ranks_for(devices: str | None, device: str) -> int:
    """The number of ranks that this process starts for `--devices`; 1: it starts none. Raises RecipeError."""
    if devices is None:
        return 1
    asked = count_of_devices(devices)
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    count = max(gpus, 1) if asked is None else asked
    if gpus and count > gpus:
        raise RecipeError(f"--devices {count} needs more GPUs than the {gpus} of this machine: give a smaller number")
    if requested_ranks() == 1:
        return count
    if devices != "auto" and count != requested_ranks():
        raise RecipeError(
            f"--devices {count} was given to one of {requested_ranks()} ranks that a launcher has started: leave it out"
        )
    return 1


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that may differ by rank: all except the dictionary's, which are the same on all ranks."""
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and not name.startswith("dictionary.")
    }


@torch.no_grad()
def gather_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The statistics that differ by rank, gathered from all W ranks: W x ... each. Empty with one rank."""
    own = statistics(model)
    if world_size() == 1 or not own:
        return {}
    rows = gather(torch.cat([buffer.flatten() for buffer in own.values()])[None])  # W x all
    sizes = [buffer.numel() for buffer in own.values()]
    parts = {name: part.reshape(-1, *own[name].shape) for name, part in zip(own, rows.split(sizes, dim=1), strict=True)}
    return {name: part for name, part in parts.items() if bool((part != part[0]).any())}


@contextmanager
def average_statistics(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A context in which the model has the mean of the ranks' statistics, as with G BN groups on one device.

    Yields the result of `gather_statistics`.
    """
    differing, own = gather_statistics(model), statistics(model)
    for name, rows in differing.items():
        own[name].copy_(rows.mean(dim=0))
    try:
        yield differing
    finally:
        restore_statistics(model, differing)


def restore_statistics(model: nn.Module, differing: dict[str, Tensor]) -> None:
    """Restore this rank's statistics from the result of `gather_statistics`."""
    own = statistics(model)
    for name, rows in differing.items():
        own[name].copy_(rows[rank()])


def pool_bad_images(quarantine: Quarantine) -> None:
    """Add the other ranks' bad images to rank 0's list. Raises DataError if there are too many in total."""
    lists = everyone(json.dumps(dict(quarantine.bad)))
    if on_main():
        for name, reason in (row for rows in lists[1:] for row in json.loads(rows).items()):
            quarantine.add(name, reason)


def check_same_images(images: Images) -> None:
    """Raise DataError if names or sizes of images differ by rank. Modification times may differ: copies have others."""
    if world_size() == 1:
        return
    manifest = Manifest(images.names, images.sizes, np.zeros_like(images.sizes))
    of_ranks = everyone(f"{len(images):,} images, SHA-256 {manifest.fingerprint[:12]}...")
    if len(set(of_ranks)) > 1:
        of_each = "; ".join(f"rank {number}: {what}" for number, what in enumerate(of_ranks))
        raise DataError(
            f"the ranks have images with different names or sizes: {of_each}. Give all of them the same DATA"
        )
