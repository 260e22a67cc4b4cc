"""Build what a run needs before its first step: networks, dictionary, precision, thread count."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from moco.distributed import world_size
from moco.encoders import Encoder, build
from moco.encoders.check_network import check_small_crops
from moco.encoders.heads import predictor
from moco.method import (
    NCE,
    Batch,
    CachedContrast,
    Contrast,
    Dictionary,
    MemoryBank,
    MomentumEncoder,
    Owners,
    Queue,
    compare,
    grouped,
    synchronized,
)
from moco.method.batchnorm import check_synchronizable
from moco.recipe import Recipe, RecipeError
from moco.rng import fold
from moco.train.loop import Batches
from moco.train.one_pass import in_one_pass
from moco.train.warm_start import load_other_parts
from moco.weights.adapt_channels import adapt_channels
from moco.weights.encoder_folder import initialize
from moco.weights.load import read_weights
from moco.weights.loaded_weights import LoadedWeights

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def contrast_for(
    recipe: Recipe,
    device: torch.device,
    *,
    num_images: int,
    model: Any,
    init: str | Path | LoadedWeights | None,
    say: Callable[[str], None],
    groups: Int64[np.ndarray, " n"] | None = None,
) -> Contrast:
    """Build f_q, f_k and the dictionary from the recipe's seed, on the device.

    `groups`: the number of each image's group, for recipes with `data.groups`; None: every image is one.
    """
    method = recipe.method
    with torch.random.fork_rng():
        torch.manual_seed(fold(recipe.seed))
        encoder, found = build_f_q(recipe, model=model, init=init, say=say)
        kind = partial(CachedContrast, pieces=recipe.optim.accumulate) if recipe.optim.cached else Contrast
        contrast = kind(
            encoder, _key_encoder(recipe, encoder), _dictionary(recipe, num_images, groups),
            predictor=predictor(recipe.encoder, method.predictor), temperature=method.temperature,
            symmetric=method.symmetric, key_views=recipe.data.key_views, shuffle_bn=method.bn == "shuffle",
            dealt=is_dealt(recipe), bn_groups=max(1, recipe.groups // world_size()),
            loss=NCE(num_images) if method.loss == "nce" else compare,
            loss_scale=2 * method.temperature if method.scale_loss else 1.0,
        )  # fmt: skip
    m = method.momentum(0.0, recipe.optim.epochs)
    for line in [] if found is None else load_other_parts(contrast, found, m=m):
        say(line)
    if method.bn == "sync":
        contrast = synchronized(contrast)
    elif in_one_pass(recipe, device, encoder):
        contrast.one_pass = grouped(contrast, contrast.bn_groups) is not None  # otherwise group by group
    contrast.to(device)
    if recipe.compute.channels_last:
        contrast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if recipe.compute.compile:
        for network in (contrast.encoder, contrast.key_encoder):
            if network is not None:
                network.compile(mode="reduce-overhead" if recipe.compute.cuda_graphs else None)
    return contrast.train()


def build_f_q(
    recipe: Recipe, *, model: Any, init: str | Path | LoadedWeights | None, say: Callable[[str], None]
) -> tuple[Encoder, LoadedWeights | None]:
    """Build f_q with the weights `init`, if any. Returns it and these weights, for the channels of the images.

    Raises:
        RecipeError: a network or weights that the recipe cannot be trained with.
    """
    encoder = build(recipe.encoder, size=recipe.data.size, model=model if isinstance(model, nn.Module) else None)
    for caution in encoder.cautions:
        say(f"caution: {caution}")
    _check_encoder(encoder, recipe)
    found = init if init is None or isinstance(init, LoadedWeights) else read_init(init, recipe)
    if found is not None:
        found, note = adapt_channels(found, encoder.backbone, channels=recipe.data.channels)
        if note:
            say(note)
        say(initialize(encoder, found))
    return encoder, found


def _check_encoder(encoder: Encoder, recipe: Recipe) -> None:
    """Raise RecipeError if the network takes no small crops, or its BatchNorm cannot be synchronized."""
    if recipe.data.small_crops and recipe.data.small_size != recipe.data.size:
        check_small_crops(encoder.backbone, encoder.num_features, recipe.data)
    if recipe.method.bn == "sync":
        try:
            check_synchronizable(encoder)
        except ValueError as error:
            raise RecipeError(f"{error}: train with one rank, or set method.bn=split") from None


def is_dealt(recipe: Recipe) -> bool:
    """Whether the loader shuffles the views of the keys over the ranks (see `DealtLoader`)."""
    return recipe.compute.deal_keys and world_size() > 1


def read_init(init: str | Path, recipe: Recipe) -> LoadedWeights:
    """The weights to start from, with all that they have: f_q, head, f_k, predictor, queue. Raises WeightsError."""
    return read_weights(init, size=recipe.data.size, whole=True)


def _key_encoder(recipe: Recipe, encoder: Encoder) -> nn.Module | None:
    """f_k, as the recipe's method.key_encoder says."""
    match recipe.method.key_encoder:
        case "momentum":
            return MomentumEncoder(encoder)
        case "shared":
            return encoder
        case "second":  # "the two encoders can be different" (Sec. 3.4): a copy of f_q at first, trained on its own
            return copy.deepcopy(encoder)
        case "none":
            return None


def _dictionary(recipe: Recipe, num_images: int, groups: Int64[np.ndarray, " n"] | None) -> Dictionary:
    method, dim, shared = recipe.method, recipe.encoder.dim, recipe.method.negatives == "shared"
    if method.size is None:
        made = Batch()
    elif method.dictionary == "queue":
        made = Queue(method.size, dim)
    else:
        made = MemoryBank(num_images, method.size, dim, momentum=method.bank_momentum, shared=shared)
    if recipe.data.groups is not None:
        made.owners = Owners(None if groups is None else torch.from_numpy(groups))
    return made


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """While open, torch uses `count` CPU threads; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scaler_for(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=recipe.compute.precision == "fp16")


def precision_of(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    if recipe.compute.precision == "fp32":
        return nullcontext
    dtype = DTYPES[recipe.compute.precision]
    return lambda: torch.autocast(device.type, dtype=dtype)


def in_format(batches: Batches, recipe: Recipe) -> Iterator[tuple[list[Tensor], Tensor]]:
    """`batches` in the memory format of the encoder."""
    layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
    for views, ids in batches:
        if recipe.compute.cuda_graphs:  # the outputs of the previous step may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        yield [view.contiguous(memory_format=layout) for view in views], ids
