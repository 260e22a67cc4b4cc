"""What a run is made of, before its first step: images, recipe, networks, arithmetic."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from moco import recipes
from moco.data.ahead import Ahead
from moco.data.dataset import Wrapped
from moco.data.folder import find_images
from moco.data.images import Images
from moco.distributed import world_size
from moco.encoders import Encoder, at_rest, build
from moco.encoders.heads import predictor
from moco.encoders.read import find
from moco.encoders.weights import initialize
from moco.method import (
    NCE,
    Batch,
    CachedContrast,
    Contrast,
    Dictionary,
    MemoryBank,
    MomentumEncoder,
    Queue,
    compare,
    synchronized,
)
from moco.recipe import Recipe, RecipeError
from moco.rng import fold
from moco.train.continued import adopt
from moco.train.loop import Batches

Sources = str | Path | Sequence[str | Path] | Ahead | Images | Dataset[Any]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def images_of(data: Sources) -> Images:
    """Folders and list files as one sequence of images; a Dataset wrapped; Images as they are."""
    if isinstance(data, Ahead):
        return data.find()
    if isinstance(data, str | Path):
        return find_images([data])
    if isinstance(data, Dataset):
        return Wrapped(data)  # pyright: ignore[reportReturnType]  # its labels are computed when asked for
    if isinstance(data, Sequence) and all(isinstance(one, str | Path) for one in data):
        return find_images(data)
    return data  # pyright: ignore[reportReturnType]


def changes_of(own: dict[str, Any], settings: dict[str, Any] | None) -> dict[str, Any]:
    """The settings, with those that have an option of their own."""
    return (settings or {}) | {name: value for name, value in own.items() if value is not None}


def resolve(
    recipe: str | Recipe,
    images: Images,
    device: torch.device,
    *,
    model: str | nn.Module | None,
    changes: dict[str, Any],
    stored: Recipe | None = None,
) -> Recipe:
    """The recipe that is meant, with its changes; what it leaves open is as in the run that goes on, `stored`."""
    if isinstance(recipe, Recipe):
        base = recipe
    elif recipe == "auto" and stored is not None:
        base = stored
    elif recipe == "auto":
        base = recipes.auto(
            len(images), side=shorter_side(images), accelerated=device.type != "cpu", epochs=changes.get("optim.epochs")
        )
    elif recipe.endswith(".json"):
        if not Path(recipe).is_file():
            raise RecipeError(f"--recipe expects a recipe's name or its JSON file, and there is no file {recipe}")
        base = Recipe.read(Path(recipe))
    else:
        base = recipes.named(recipe)
    if model is not None:
        name = model if isinstance(model, str) else "custom"  # what it has not is at rest: the stem of a ResNet, ...
        others = {f"encoder.{field}": value for field, value in at_rest(name).items()}
        changes = {"encoder.name": name} | others | changes
    chosen = base.but(None, changes)
    if chosen.compute.threads is None:  # they change the last bits of sums, so a run keeps them
        threads = torch.get_num_threads() if stored is None else stored.compute.threads
        chosen = chosen.but(None, {"compute.threads": threads})
    return chosen


def shorter_side(images: Images) -> int:
    """The usual shorter side of the images [pixels]: the median of a few."""
    some = np.linspace(0, len(images) - 1, min(len(images), 9)).astype(int)
    sides: list[int] = []
    for index in some:
        try:
            sides.append(min(images.read(int(index)).shape[:2]))
        except Exception:  # a broken one is counted when its turn comes
            continue
    return int(np.median(sides)) if sides else 224


def check_fits(recipe: Recipe, num_images: int) -> None:
    """The rules that need to know the data and the ranks. Raises RecipeError."""
    batch, size, ranks = recipe.optim.batch_size, recipe.method.size, world_size()
    if num_images < batch:
        raise RecipeError(
            f"a mini-batch has {batch} images (optim.batch_size), and there are only {num_images} in all: add images, "
            f"or --set optim.batch_size={max(4, num_images // 4)}, or --recipe auto, which fits itself to the data"
        )
    if recipe.method.dictionary == "queue" and size is not None and size + batch > num_images:
        raise RecipeError(
            f"a dictionary of {size} keys (method.size) beside a mini-batch of {batch} holds other views of the "
            f"queries' own images when there are only {num_images}: they would count as negatives. Expected "
            f"K + batch <= images: --set method.size={1 << (num_images // 4).bit_length() - 1}, or --recipe auto"
        )
    pieces = recipe.optim.accumulate
    if batch % ranks or (recipe.groups > 1 and recipe.groups % ranks):
        raise RecipeError(
            f"batch ({batch}) and bn_groups ({recipe.groups}) must divide over {ranks} ranks: set optim.batch_size and "
            "method.bn_groups to multiples of it, or take other ranks"
        )
    if recipe.groups // ranks % pieces:
        raise RecipeError(
            f"optim.accumulate ({pieces}) must divide the {recipe.groups // ranks} BN groups of each of {ranks} ranks"
        )


def contrast_for(
    recipe: Recipe,
    device: torch.device,
    *,
    num_images: int,
    model: Any,
    init: str | Path | None,
    say: Callable[[str], None],
) -> Contrast:
    """f_q, f_k and the dictionary, drawn from the recipe's seed, on the device."""
    method = recipe.method
    with torch.random.fork_rng():
        torch.manual_seed(fold(recipe.seed))
        encoder = build(recipe.encoder, size=recipe.data.size, model=model if isinstance(model, nn.Module) else None)
        found = None if init is None else find(init, size=recipe.data.size, whole=True)
        if found is not None:
            say(initialize(encoder, found))
        kind = partial(CachedContrast, pieces=recipe.optim.accumulate) if recipe.optim.cached else Contrast
        contrast = kind(
            encoder, _key_encoder(recipe, encoder), _dictionary(recipe, num_images),
            predictor=predictor(recipe.encoder, method.predictor), temperature=method.temperature,
            symmetric=method.symmetric, shuffle_bn=method.bn == "shuffle",
            bn_groups=max(1, recipe.groups // world_size()),
            loss=NCE(num_images) if method.loss == "nce" else compare,
            loss_scale=2 * method.temperature if method.scale_loss else 1.0,
        )  # fmt: skip
    for line in [] if found is None else adopt(contrast, found):
        say(line)
    if method.bn == "sync":
        contrast = synchronized(contrast)
    contrast.to(device)
    if recipe.compute.channels_last:
        contrast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if recipe.compute.compile:
        for network in (contrast.encoder, contrast.key_encoder):
            if network is not None:
                network.compile(mode="reduce-overhead" if recipe.compute.cuda_graphs else None)
    return contrast.train()


def _key_encoder(recipe: Recipe, encoder: Encoder) -> nn.Module | None:
    """f_k, by the recipe's method.key_encoder."""
    match recipe.method.key_encoder:
        case "momentum":
            return MomentumEncoder(encoder)
        case "shared":
            return encoder
        case "second":  # "the two encoders can be different" (Sec. 3.4): as f_q at first, then trained by itself
            return copy.deepcopy(encoder)
        case "none":
            return None


def _dictionary(recipe: Recipe, num_images: int) -> Dictionary:
    method, dim = recipe.method, recipe.encoder.dim
    if method.size is None:
        return Batch()
    if method.dictionary == "queue":
        return Queue(method.size, dim)
    return MemoryBank(num_images, method.size, dim, momentum=method.bank_momentum, shared=method.negatives == "shared")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """While open, torch computes with `count` threads on a CPU, or with as many as it did."""
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
    """`batches`, in the memory format that the encoder computes in."""
    layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
    for views, ids in batches:
        if recipe.compute.cuda_graphs:  # what they gave in the step before may be written over from now on
            torch.compiler.cudagraph_mark_step_begin()
        yield [view.contiguous(memory_format=layout) for view in views], ids
