"""Combine the ranks' BN statistics and bad images, and check that all ranks see the same images."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.images import DataError, Images
from moco.data.sources.manifest import Manifest
from moco.distributed import asked_ranks, everyone, gather, on_main, rank, world_size
from moco.recipe import RecipeError


def ranks_for(devices: str | None, device: str) -> int:
    """How many ranks `--devices` asks this process to start; 1: none. Raises RecipeError."""
    if devices is None:
        return 1
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    count = max(gpus, 1) if devices == "auto" else int(devices) if devices.isdecimal() else 0
    if count < 1:
        raise RecipeError(f"--devices expects a number or auto, got '{devices}'")
    if gpus and count > gpus:
        raise RecipeError(f"--devices {count} needs more GPUs than the {gpus} of this machine: give a smaller number")
    if asked_ranks() == 1:
        return count
    if devices != "auto" and count != asked_ranks():
        raise RecipeError(
            f"--devices {count} was given to one of {asked_ranks()} ranks that a launcher has started: leave it out"
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
def of_ranks(model: nn.Module) -> dict[str, Tensor]:
    """The statistics that differ by rank, of all ranks: W x ... each. Empty with one rank."""
    own = statistics(model)
    if world_size() == 1 or not own:
        return {}
    rows = gather(torch.cat([buffer.flatten() for buffer in own.values()])[None])  # W x all
    sizes = [buffer.numel() for buffer in own.values()]
    parts = {name: part.reshape(-1, *own[name].shape) for name, part in zip(own, rows.split(sizes, dim=1), strict=True)}
    return {name: part for name, part in parts.items() if bool((part != part[0]).any())}


@contextmanager
def averaged(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While open, replace the statistics by their mean over the ranks, as G BN groups on one device have them.

    Yields the result of `of_ranks`.
    """
    differing, own = of_ranks(model), statistics(model)
    for name, rows in differing.items():
        own[name].copy_(rows.mean(dim=0))
    try:
        yield differing
    finally:
        put_back(model, differing)


def put_back(model: nn.Module, differing: dict[str, Tensor]) -> None:
    """Restore this rank's statistics from the result of `of_ranks`."""
    own = statistics(model)
    for name, rows in differing.items():
        own[name].copy_(rows[rank()])


def pool(quarantine: Quarantine) -> None:
    """Add the other ranks' bad images to rank 0's. Raises DataError if there are too many in all."""
    found = everyone(json.dumps(dict(quarantine.bad)))
    if on_main():
        for name, reason in (row for rows in found[1:] for row in json.loads(rows).items()):
            quarantine.add(name, reason)


def check_same_images(images: Images) -> None:
    """Raise DataError if names or sizes of images differ by rank. Times may differ, as those of copies do."""
    if world_size() == 1:
        return
    manifest = Manifest(images.names, images.sizes, np.zeros_like(images.sizes))
    seen = everyone(f"{len(images):,} images, SHA-256 {hashlib.sha256(manifest.lines).hexdigest()[:12]}...")
    if len(set(seen)) > 1:
        of_each = "; ".join(f"rank {number}: {what}" for number, what in enumerate(seen))
        raise DataError(
            f"the ranks see images with different names or sizes: {of_each}. Give all of them the same DATA"
        )
