"""BN groups on one device: the batch statistics that G devices would take, for any backbone with plain BatchNorm.

The encoder runs over the G parts of a mini-batch one after the other, as virtual devices. Shuffling BN (Sec. 3.3) then
means on one device what it means on G.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


@contextmanager
def bn_group(module: nn.Module, group: int, groups: int) -> Iterator[None]:
    """While open, a forward pass counts as part `group` (from 0) of `groups` of one mini-batch.

    The running statistics end as the mean over the groups of each group's own update (1 - a) r + a s_g, a being the
    layer's momentum. Pass g of G, one after the other, must for that use a_g = (a/G) / (1 - (G - g) a/G), g from 1:
    the products of 1 - a_g telescope to 1 - a, and every s_g ends with the weight a/G.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.momentum is not None]
    momenta = [layer.momentum for layer in layers]
    for layer, a in zip(layers, momenta, strict=True):
        assert a is not None
        layer.momentum = (a / groups) / (1 - (groups - group - 1) * a / groups)
    try:
        yield
    finally:
        for layer, a in zip(layers, momenta, strict=True):
            layer.momentum = a


def in_groups(module: nn.Module, x: Tensor, members: Iterable[int], groups: int) -> Tensor:
    """module(x), where the rows of `x` are the equal parts `members` of the `groups` parts of a mini-batch."""
    members = list(members)
    if len(x) % len(members):
        raise ValueError(f"{len(x)} rows do not divide into {len(members)} BN groups of equal size")
    results: list[Tensor] = []
    for group, part in zip(members, x.chunk(len(members)), strict=True):
        with bn_group(module, group, groups):
            results.append(module(part))
    return results[0] if len(results) == 1 else torch.cat(results)
