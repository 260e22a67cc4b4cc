"""Start from weights (--init): use their f_k, predictor and queue too, and fill a queue that they lack.

A trained encoder tells random keys from its own key at once, and would learn little in the first K / N steps. So if the
weights have no queue that fits, f_k encodes K images before the first step.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from moco.method import Contrast, MomentumEncoder, Queue
from moco.recipe import Recipe
from moco.train.loop import Batches, seed_step
from moco.weights.loaded_weights import LoadedWeights

BEFORE = 0  # the step recorded for keys from before the run


def adopt(contrast: Contrast, found: LoadedWeights, *, m: float) -> list[str]:
    """Load f_k, predictor and queue of the weights. `initialize` has loaded f_q, and f_k is a copy of it already.

    The authors' code applies Eqn. (2) at the start of a step, ours at its end: the f_k of their files gets the update
    that their code would begin with.

    Args:
        m: the momentum of the first step.

    Returns:
        Sentences that say what was loaded and what was not.
    """
    messages: list[str] = []
    if isinstance(contrast.key_encoder, MomentumEncoder):
        messages.append(_take_f_k(contrast, contrast.key_encoder, found, m))
    if not isinstance(contrast.predictor, nn.Identity):
        messages.append(_take("The predictor", contrast.predictor, found.predictor, otherwise="starts at random"))
    if isinstance(contrast.dictionary, Queue):
        same_head = _fits(contrast.encoder.get_submodule("head"), found.head)
        messages.append(_take_queue(contrast.dictionary, found.queue, same_head=same_head))
    if isinstance(found.content.get("optimizer"), dict):
        messages.append("The optimizer starts anew: its state in the file belongs to another schedule")
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

    They are the last images of the first epoch's order, so that few queries meet a key of their own image in the queue,
    as in any later epoch.

    Args:
        batches_of: this rank's share of the mini-batches of some steps of the run; the keys' views are encoded.

    Returns:
        A sentence that says what was done; none if there is nothing to fill.
    """
    queue = contrast.dictionary
    if not isinstance(queue, Queue) or not bool((queue.born < BEFORE).any()):
        return []
    size = len(queue.keys)
    steps = range(steps_per_epoch - math.ceil(size / recipe.optim.batch_size), steps_per_epoch)
    for step, (views, ids) in zip(steps, batches_of(steps), strict=True):
        rng = seed_step(recipe.seed, step)
        with precision():
            keys = contrast.encode_keys(views[1], rng)
        queue.update(keys, ids, BEFORE)
    return [f"The queue was filled by f_k with the keys of {size:,} images before the first step"]


def _take_f_k(contrast: Contrast, key_encoder: MomentumEncoder, found: LoadedWeights, m: float) -> str:
    sentence = _take("f_k", key_encoder.module, found.f_k, otherwise="is a copy of f_q")
    if not (found.f_k_lags and _fits(key_encoder.module, found.f_k)):
        return sentence
    contrast.follow(m)
    return f"{sentence}, after the momentum update (m = {m:g}) that the authors' code begins a step with"


def _take(what: str, module: nn.Module, tensors: dict[str, Tensor], *, otherwise: str) -> str:
    if not tensors:
        return f"{what} {otherwise}: there is none in the file"
    if not _fits(module, tensors):
        return f"{what} {otherwise}: the file's has other layers or sizes"
    module.load_state_dict(tensors, strict=False)
    return f"{what} is from the file"


def _fits(module: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether names and shapes are the same, but for unused counters that files from before 2018 lack."""
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    there = {key: value.shape for key, value in tensors.items()}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    return there.items() <= wanted.items() and wanted.keys() - there.keys() <= counters


def _take_queue(queue: Queue, found: dict[str, Tensor], *, same_head: bool) -> str:
    """Load the queue, without image ids: the file has none, or they are of other images."""
    if not found:
        return "There is no queue in the file"
    if not same_head:
        return "The file's queue was not loaded: its keys are from another head"
    theirs, ours = list(found["keys"].shape), list(queue.keys.shape)
    if theirs != ours:
        return "The file's queue was not loaded: it is {:,} x {}, and this run's {:,} x {}".format(*theirs, *ours)
    queue.keys.copy_(found["keys"])
    queue.oldest.copy_(found["oldest"])
    queue.born.fill_(BEFORE)
    return f"The queue's {ours[0]:,} keys are from the file"
