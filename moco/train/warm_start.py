"""Start from weights (--init): load their f_k, predictor and queue too. Without a queue, fill it before the first step.

A trained encoder tells a query's key from random keys easily, so it would learn little in the first K / N steps. So if
the weights have no queue that fits, f_k encodes K images before the first step.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from moco.method import Contrast, MomentumEncoder, Queue
from moco.method.contrast import mean_key
from moco.recipe import Recipe
from moco.train.loop import Batches, seed_step
from moco.weights.loaded_weights import LoadedWeights

BEFORE = 0  # the step recorded for keys from before the run


def load_other_parts(contrast: Contrast, weights: LoadedWeights, *, m: float) -> list[str]:
    """Load f_k, predictor and queue of the weights. f_q is loaded already, and f_k is a copy of it.

    The authors' code applies Eqn. (2) at the start of a step, ours at the end. So the f_k of their files gets one
    update here, which their code would make at the start of the next step.

    Args:
        m: the momentum of the first step.

    Returns:
        Messages about what was loaded and what was not.
    """
    messages: list[str] = []
    if isinstance(contrast.key_encoder, MomentumEncoder):
        messages.append(_load_f_k(contrast, contrast.key_encoder, weights, m))
    if not isinstance(contrast.predictor, nn.Identity):
        messages.append(
            _load_part("The predictor", contrast.predictor, weights.predictor, otherwise="has random weights")
        )
    if isinstance(contrast.dictionary, Queue):
        same_head = _fits(contrast.encoder.get_submodule("head"), weights.head)
        messages.append(_load_queue(contrast.dictionary, weights.queue, same_head=same_head))
    if isinstance(weights.content.get("optimizer"), dict):
        messages.append("The optimizer's state in the file was not loaded: it belongs to another schedule")
    return messages


@torch.no_grad()
def refill(
    contrast: Contrast,
    batches_of: Callable[[range], Batches],
    recipe: Recipe,
    *,
    steps_per_epoch: int,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[str]:
    """Replace random keys in the queue by keys of K images, encoded as in training: BN groups, shuffled, no gradient.

    The images are the last ones of the first epoch. So few queries find a key of their own image in the queue, as in
    any later epoch.

    Args:
        batches_of: returns this rank's share of the mini-batches of some steps. The keys' views are encoded.

    Returns:
        A message about what was done; none if there is nothing to fill.
    """
    queue = contrast.dictionary
    if not isinstance(queue, Queue) or not bool((queue.born < BEFORE).any()):
        return []
    size = len(queue.keys)
    steps = range(steps_per_epoch - math.ceil(size / recipe.optim.batch_size), steps_per_epoch)
    for step, (views, ids) in zip(steps, batches_of(steps), strict=True):
        rng = seed_step(recipe.seed, step)
        with precision():
            keys = mean_key([contrast.encode_keys(x, rng) for x in views[1 : 1 + contrast.key_views]])
        queue.update(keys, ids, BEFORE)
    return [f"The queue was filled by f_k with the keys of {size:,} images before the first step"]


def _load_f_k(contrast: Contrast, key_encoder: MomentumEncoder, weights: LoadedWeights, m: float) -> str:
    message = _load_part("f_k", key_encoder.module, weights.f_k, otherwise="is a copy of f_q")
    if not (weights.f_k_lags and _fits(key_encoder.module, weights.f_k)):
        return message
    contrast.follow(m)
    return f"{message}, with one momentum update (m = {m:g}), which the authors' code makes at the start of a step"


def _load_part(name: str, module: nn.Module, tensors: dict[str, Tensor], *, otherwise: str) -> str:
    """Load the tensors if they fit. Returns a message about it; `otherwise`: what the part is if they do not."""
    if not tensors:
        return f"{name} {otherwise}: there is none in the file"
    if not _fits(module, tensors):
        return f"{name} {otherwise}: the file's has other layers or sizes"
    module.load_state_dict(tensors, strict=False)
    return f"{name} is from the file"


def _fits(module: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether names and shapes are the same. BN's unused counters may be missing, as in files from before 2018."""
    expected = {key: value.shape for key, value in module.state_dict().items()}
    given = {key: value.shape for key, value in tensors.items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    return given.items() <= expected.items() and expected.keys() - given.keys() <= counters


def _load_queue(queue: Queue, tensors: dict[str, Tensor], *, same_head: bool) -> str:
    """Load the queue, but no image ids: the file has none, or they are of other images. Returns a message about it."""
    if not tensors:
        return "There is no queue in the file"
    if not same_head:
        return "The file's queue was not loaded: its keys are from another head"
    theirs, ours = list(tensors["keys"].shape), list(queue.keys.shape)
    if theirs != ours:
        return "The file's queue was not loaded: it is {:,} x {}, and this run's {:,} x {}".format(*theirs, *ours)
    queue.keys.copy_(tensors["keys"])
    queue.oldest.copy_(tensors["oldest"])
    queue.born.fill_(BEFORE)
    return f"The queue's {ours[0]:,} keys are from the file"
