"""Whether the encoders run once over all BN groups, or group by group: on a GPU, if its memory allows it."""

import copy

import torch
from torch import Tensor, nn

from moco.distributed import agree, world_size
from moco.recipe import Recipe

SHARE = 0.6  # of a GPU's memory that the activations of one pass may take: weights and the loss take some, too
HALVES = 0.6  # bytes of activations under autocast, as a share of those in float32 (0.54 on an H200, ResNet-50)


def in_one_pass(recipe: Recipe, device: torch.device, encoder: nn.Module) -> bool:
    """Whether the encoders run once over all BN groups of this rank, and not group by group.

    On a GPU many small kernels take longer than their arithmetic (docs/speed.md), so one pass is the default there,
    unless the activations of the whole mini-batch would not fit. Gradient caching always goes group by group.
    """
    if recipe.optim.cached or recipe.groups <= world_size():
        return False
    if recipe.compute.one_pass is not None or device.type != "cuda":
        return bool(recipe.compute.one_pass)
    memory = torch.cuda.get_device_properties(device).total_memory
    return not agree(int(not fits(recipe, encoder, memory)))  # on all ranks, or on none


def fits(recipe: Recipe, encoder: nn.Module, memory: int) -> bool:
    """Whether the activations of this rank's mini-batch take at most `SHARE` of `memory` bytes."""
    each = activation_bytes(encoder, recipe.data.size, recipe.data.channels) * (
        1 if recipe.compute.precision == "fp32" else HALVES
    )
    data = recipe.data
    crops = data.small_crops * data.small_size**2 / data.size**2  # the small crops of an image, encoded together
    return max(1, crops) * each * recipe.optim.batch_size / world_size() <= SHARE * memory


def activation_bytes(encoder: nn.Module, size: int, channels: int = 3) -> float:
    """Bytes that a forward pass of one image of `size` pixels keeps for the backward pass, in float32.

    Counted on tensors without data. Infinite for a network that cannot run on such.
    """
    network = copy.deepcopy(encoder).to("meta").train()
    weights = {x.untyped_storage()._cdata for x in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage._cdata] = storage
        return x

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            network(torch.zeros(2, channels, size, size, device="meta"))
    except (NotImplementedError, RuntimeError):
        return float("inf")
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights) / 2
