"""Find parameters that get no gradient: DDP must know of them before the first step."""

import copy

import torch
from torch import Tensor, nn

from moco.distributed import agree, world_size
from moco.method.batchnorm import one_group
from moco.recipe import Recipe


def skips_parameters(encoder: nn.Module, recipe: Recipe) -> bool:
    """Whether a step may leave parameters of `encoder` without a gradient; the same answer on every rank.

    A user's module may skip layers at random, which a single pass does not show. Our own networks skip none.
    """
    if world_size() == 1:
        return False
    if recipe.encoder.name == "custom":
        return True
    library = "/" in recipe.encoder.name
    return bool(
        agree(
            int(library and bool(find_unused_parameters(encoder, size=recipe.data.size, channels=recipe.data.channels)))
        )
    )


def find_unused_parameters(encoder: nn.Module, *, size: int, channels: int = 3) -> list[str]:
    """The trained parameters without a gradient after a pass of a copy of `encoder` over two images."""
    probe = copy.deepcopy(encoder).train()
    trained = {name: x for name, x in probe.named_parameters() if x.requires_grad}
    first = next(iter(trained.values()), None)
    if first is None:
        return []
    probe.zero_grad(set_to_none=True)
    with torch.random.fork_rng(), torch.enable_grad(), one_group(probe):
        y: Tensor = probe(torch.rand(2, channels, size, size, device=first.device, dtype=first.dtype))
        y.float().sum().backward()
    return [name for name, x in trained.items() if x.grad is None]
