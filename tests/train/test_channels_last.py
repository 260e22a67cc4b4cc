"""A step in channels_last stays in it: no convolution and no BN is handed a tensor that it would have to turn first."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moco.recipe import Recipe
from moco.train.build import contrast_for

FORMAT = torch.channels_last


class Turned(TorchDispatchMode):
    """Collects the operations on images in another format, and what copies images into another one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.convolutions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, result = str(func), func(*args, **(kwargs or {}))
        images = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor) and x.ndim == 4]
        other = [x for x in images if not x.is_contiguous(memory_format=FORMAT)]
        self.convolutions += "convolution" in name
        if other and any(word in name for word in ("convolution", "batch_norm", "clone", "copy")):
            self.found.append(f"{name}{[tuple(x.shape) for x in other]}")
        return result


def watched(recipe: Recipe, layout: torch.memory_format) -> Turned:
    """Keys, queries and gradients of one mini-batch of views in this format."""
    contrast = contrast_for(recipe, torch.device("cpu"), num_images=50, model=None, init=None, say=print)
    rng = torch.Generator().manual_seed(0)
    views = [torch.randn(8, 3, 32, 32).contiguous(memory_format=layout) for _ in range(2)]
    with Turned() as turned:
        for part in contrast.parts(views, torch.arange(8), rng):
            contrast(part, rng).loss.backward()
    assert turned.convolutions > 50
    return turned


def test_a_step_does_not_change_the_memory_format_of_images(tiny):
    assert watched(tiny, FORMAT).found == []


def test_the_check_detects_views_in_another_memory_format(tiny):
    assert any("convolution" in name for name in watched(tiny, torch.contiguous_format).found)
