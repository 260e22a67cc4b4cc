"""Measures that may explain a score: age of keys, lag of f_k behind f_q, and whether BN lets the model cheat."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import Images
from moco.diagnose.signals import finds_own_key, lag, mean_cosine
from moco.method import Contrast, MemoryBank, MomentumEncoder, Queue
from moco.method.batchnorm import in_groups
from moco.method.contrast import unit
from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.build import in_format, threads
from moco.train.loop import make_shared_generator
from moco.train.restore_networks import build_untrained, restore_networks
from moco.train.run_folder import RunFolder

SAMPLE = 1024  # images whose own keys are searched


def measures(run: RunFolder, images: Images, *, device: torch.device, workers: int) -> dict[str, float]:
    """Facts about a finished run, from its log and its checkpoints.

    loss, pretext: the means over the last epoch; pretext is the share [percent] of queries that find their own key.
    level: the loss when all keys are alike.
    steps: of the optimizer.
    lag: |theta_k - theta_q| / |theta_q - initial theta_q|: 0 if f_k equals f_q, about 1 if f_k has not moved.
    consistency: mean cosine between the dictionary's keys and the present encoder's keys of the same views.
    agreement: mean cosine between the embeddings of the two views of an image (by f_q, and f_k if there is one).
    stored, remade: the share [percent] of new queries that find their own key, among the queue's keys as stored, and
        among keys that the present encoder makes of the same views. If `stored` is higher, queries recognise their own
        key by its being newer than the others.
        These four are measured in the middle of the run if it has a checkpoint there: at the end, with a learning rate
        of 0, nothing changes any more.
    own, apart: the share [percent] of queries that find their own key in the queue, with the key's BN statistics as in
        training, and with those of other images.
    """
    recipe = run.recipe()
    last = [record for record in run.metrics() if "loss" in record]
    last = [record for record in last if record["epoch"] > last[-1]["epoch"] - 1]
    steps = last[-1]["step"]
    found = {
        "loss": sum(record["loss"] for record in last) / len(last),
        "pretext": 100 * sum(record["pretext_top1"] for record in last) / len(last),
        "level": recipe.collapse_level,
        "steps": steps,
    }
    with threads(recipe.compute.threads), torch.no_grad():
        contrast = restore_networks(run, recipe, device, num_images=len(images), step=steps)
        if isinstance(contrast.key_encoder, MomentumEncoder):
            at_first = build_untrained(recipe, device, num_images=len(images))
            found["lag"] = lag(contrast.key_encoder.module, contrast.encoder, at_first.encoder)
        if not recipe.method.symmetric:
            if isinstance(contrast.dictionary, Queue):
                found |= measure_leak(contrast, recipe, images, step=steps, workers=workers)
            half = steps // 2 if middle(run, steps).is_file() else steps
            contrast = restore_networks(run, recipe, device, num_images=len(images), step=half)
            found |= staleness(contrast, recipe, images, step=half, workers=workers)
    return found


def middle(run: RunFolder, steps: int) -> Path:
    """The checkpoint of the middle of a run."""
    return run.checkpoints / checkpoint.checkpoint_name(steps // 2)


def measure_leak(contrast: Contrast, recipe: Recipe, images: Images, *, step: int, workers: int) -> dict[str, float]:
    """The measures `own` and `apart` of an encoder with a queue, on the last mini-batches before `step`."""
    assert isinstance(contrast.dictionary, Queue)
    steps = range(max(0, step - math.ceil(SAMPLE / recipe.optim.batch_size)), step)
    queries, keys, ids, x_k = encode(contrast, recipe, images, steps, workers)
    apart = encode_apart(contrast, x_k, recipe.optim.batch_size)
    queue = contrast.dictionary
    return {
        "own": own_key_found(queries, keys, ids, queue.keys, queue.ids),
        "apart": own_key_found(queries, apart, ids, queue.keys, queue.ids),
    }


def staleness(contrast: Contrast, recipe: Recipe, images: Images, *, step: int, workers: int) -> dict[str, float]:
    """The measures `consistency` and `agreement`, on the mini-batches before `step` in the queue, or of an epoch.

    With a queue also `stored` and `remade`, on the next mini-batches.
    """
    batch, dictionary = recipe.optim.batch_size, contrast.dictionary
    size = len(dictionary.keys) if isinstance(dictionary, Queue) else 0
    back = len(images) // batch if isinstance(dictionary, MemoryBank) else math.ceil(max(size, SAMPLE) / batch)
    queries, keys, ids, _ = encode(contrast, recipe, images, range(max(0, step - back), step), workers)
    found = {"agreement": mean_cosine(queries, keys)}
    if isinstance(dictionary, Queue):
        stored = dictionary.keys.roll(-int(dictionary.oldest), dims=0)[-len(keys) :]  # the oldest first
        remade, owners = keys[-len(stored) :], ids[-len(stored) :]
        found["consistency"] = mean_cosine(stored, remade)
        new = encode(contrast, recipe, images, range(step, step + math.ceil(SAMPLE / batch)), workers)[:3]
        found["stored"], found["remade"] = (own_key_found(*new, among, owners) for among in (stored, remade))
    if isinstance(dictionary, MemoryBank):
        found["consistency"] = mean_cosine(dictionary.keys[ids], queries)
    return found


def encode(
    contrast: Contrast, recipe: Recipe, images: Images, seen: range, workers: int
) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"], Tensor, Tensor]:
    """Encode the mini-batches of the steps `seen` by the present encoders: queries, keys, image ids, key views.

    Mini-batches and Shuffling BN's order are the same as in training. A memory bank's keys are queries of x_k.
    """
    device = next(contrast.parameters()).device
    loader = ViewLoader(
        images, recipe.data, batch_size=recipe.optim.batch_size, seed=recipe.seed, steps=seen, workers=workers,
        device=device, quarantine=Quarantine(None, None, len(images)),
    )  # fmt: skip
    groups = range(contrast.bn_groups)
    queries: list[Tensor] = []
    keys: list[Tensor] = []
    ids: list[Tensor] = []
    x_k: list[Tensor] = []
    for step, (views, which) in zip(seen, in_format(loader, recipe), strict=True):
        rng = make_shared_generator(recipe.seed, step)
        queries.append(contrast.encode_queries(views[0], groups))
        ours = contrast.key_encoder is None
        keys.append(contrast.encode_queries(views[1], groups) if ours else contrast.encode_keys(views[1], rng))
        ids.append(which)
        x_k = [*x_k, views[1]][-max(1, SAMPLE // len(which)) :]
    return torch.cat(queries), torch.cat(keys), torch.cat(ids), torch.cat(x_k)


def encode_apart(contrast: Contrast, x: Float[Tensor, "n 3 S S"], batch: int) -> Float[Tensor, "n C"]:
    """Keys of several mini-batches, mixed before encoding so that BN statistics reveal nothing about the queries."""
    assert isinstance(contrast.key_encoder, nn.Module)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    parts = [
        unit(in_groups(contrast.key_encoder, part, range(contrast.bn_groups), contrast.bn_groups))
        for part in x[order].split(batch)
    ]
    return torch.cat(parts)[order.argsort()]


def own_key_found(
    q: Float[Tensor, "n C"], k: Float[Tensor, "n C"], ids: Tensor, among: Float[Tensor, "K C"], owners: Tensor
) -> float:
    """Share of queries [percent] that are closer to their own key than to any key of another image in `among`."""
    return 100 * finds_own_key(q, k, ids, among, owners).double().mean().item()
