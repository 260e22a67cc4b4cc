"""Eqn. (1) by an attention kernel: attention over the dictionary with values = keys returns all that the loss needs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import flex_attention

from moco.method.loss import LookUp, Summed, Sums


def compare_attended(
    look_up: LookUp, temperature: float, *, attention: Callable[..., Any] = flex_attention
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """As `compare`, for shared keys and a separate positive, by torch's flex attention: one kernel instead of a loop.

    Meant for GPUs with `attention=torch.compile(flex_attention)`; not tested on one. On a CPU torch cannot compile it
    with the auxiliary outputs needed here, and uncompiled it holds the N x M logits in memory: `compare` is faster.
    """
    if look_up.positive is None or look_up.drawn is not None:
        raise ValueError("expected keys shared by all queries and a separate positive: use moco.method.compare")
    if look_up.keys.requires_grad or look_up.positive.requires_grad:
        raise ValueError("expected keys and a separate positive without gradient: compute them under torch.no_grad()")
    sums_of = partial(_by_attention, keys=look_up.keys, attention=attention)
    return Summed.apply(look_up.q, look_up.positive, temperature, sums_of)  # pyright: ignore[reportReturnType]


def _by_attention(
    scaled: Tensor, positive: Tensor, l_pos: Tensor, *, keys: Tensor, attention: Callable[..., Any]
) -> Sums:
    """The sums over the keys and the positive, from the attention over the keys."""
    q, kv = scaled[None, None], keys[None, None]  # one image, one head
    request = getattr(flex, "AuxRequest", None)
    if request is None:  # torch 2.8
        found, lse = attention(q, kv, kv, scale=1.0, return_lse=True)
        highest = None
    else:
        on_cpu = scaled.device.type == "cpu"  # torch does not return the largest score on a CPU
        found, aux = attention(q, kv, kv, scale=1.0, return_aux=request(lse=True, max_scores=not on_cpu))
        lse, highest = aux.lse, None if on_cpu else aux.max_scores
    l_neg = (scaled @ keys.T).amax(dim=1) if highest is None else highest[0, 0]
    lse = lse[0, 0, :, None]  # log sum exp(q.k / tau)
    shift = torch.maximum(lse, l_pos)
    all_keys, own = torch.exp(lse - shift), torch.exp(l_pos - shift)
    return Sums(all_keys + own, all_keys * found[0, 0] + own * positive, shift, l_neg[:, None])
