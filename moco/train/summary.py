"""The plan that a run prints before it starts, and the summary at its end."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from moco.data.sources.groups import describe_groups
from moco.data.sources.images import Images
from moco.data.sources.skipped import describe_skipped
from moco.distributed import world_size
from moco.recipe import DataSpec, EncoderSpec, Recipe
from moco.recipes import RECIPES, named
from moco.recipes.auto import epochs_for
from moco.text import duration, plural
from moco.train.after_step import last_values
from moco.train.checkpoint import Clock
from moco.train.resolve_recipe import has_zero_learning_rate
from moco.train.run_folder import RunFolder

FEW = 1000  # images; with fewer, pre-trained weights (--init) are the better start


def plan_rows(
    recipe: Recipe,
    images: Images,
    clock: Clock,
    device: torch.device,
    out: Path,
    *,
    init: str | Path | None = None,
    time: str | None = None,
) -> list[tuple[str, str]]:
    """The rows of the plan box.

    Args:
        time: what is known about the time of the run.
    """
    method, encoder, size = recipe.method, recipe.encoder, recipe.data.size
    threads, ranks = recipe.compute.threads or torch.get_num_threads(), world_size()
    on_ranks, per_rank = (f" on {ranks} ranks", " per rank") if ranks > 1 else ("", "")
    skipped = describe_skipped(images)
    kept = f", of images kept in memory at {recipe.data.shrink} pixels" if recipe.data.shrink else ""
    kept += ", of JPEG files decoded at the least scale that they need" if recipe.data.decode == "scaled" else ""
    bands = f", {plural(recipe.data.channels, 'band')}" if recipe.data.bands else ""
    rows = [
        ("images", f"{len(images):,}"),
        *([("skipped", skipped)] if skipped else []),
        *([("groups", describe_groups(images.names, recipe.data.groups))] if recipe.data.groups else []),
        ("recipe", f"{recipe.name}  ({recipe.source})"),
        ("encoder", f"{network(encoder)}, {encoder.head} head to {encoder.dim}-d, "
                    f"views of {size} x {size} pixels{more_views(recipe.data)}{bands}{kept}"),
        *([("weights", f"from {init}")] if init else []),
        ("dictionary", dictionary(recipe, len(images))),
        ("batch", f"{recipe.optim.batch_size} images{on_ranks}, {batch_norm(recipe)}"
                  f"{', symmetric' if method.symmetric else ''}{pieces(recipe)}"),
        ("length", f"{recipe.optim.epochs:g} {'epoch' if recipe.optim.epochs == 1 else 'epochs'} x "
                   f"{plural(clock.steps_per_epoch, 'step')} = {plural(clock.total_steps, 'step')}"),
        *([("time", time)] if time else []),
        ("device", f"{device}, {plural(threads, 'thread')}{per_rank}, {recipe.compute.precision}"),
        ("out", str(out)),
    ]  # fmt: skip
    few = (
        [
            f"{len(images):,} images are few for training from random weights: add images, or start from pre-trained "
            "weights (--model resnet50 --init fair:moco_v2_800ep)"
        ]
        if init is None and len(images) < FEW
        else []
    )
    warned = cautions(recipe, images, clock, device, measured=time is not None)
    return rows + [("caution", text) for text in [*few, *warned]]


def network(encoder: EncoderSpec) -> str:
    """The name of the network, with its width if that is not the usual one."""
    return encoder.name if encoder.width == 1 else f"{encoder.name} of width {encoder.width:g}"


def more_views(data: DataSpec) -> str:
    """The views of an image beyond one of the query and one of the key."""
    keys = f", {data.key_views} of each key" if data.key_views > 1 else ""
    return keys + (f", and {data.small_crops} of {data.small_size} x {data.small_size}" if data.small_crops else "")


def dictionary(recipe: Recipe, num_images: int) -> str:
    """A description of the dictionary: its keys and its memory."""
    method, dim = recipe.method, recipe.encoder.dim
    if method.dictionary == "queue":
        assert method.size is not None
        what = f"queue of {method.size:,} keys ({100 * method.size / num_images:.0f} % of the images)"
    elif method.dictionary == "bank":
        held = f"{num_images:,} x {dim} float32 = {num_images * dim * 4 / 2**20:,.1f} MiB, also in each checkpoint"
        drawn = "drawn for the mini-batch" if method.negatives == "shared" else "drawn for each query"
        what = f"memory bank of one key per image ({held}), {method.size:,} negatives {drawn}, {method.loss}"
    else:
        makers = {"momentum": "the momentum encoder", "shared": "f_q itself", "second": "a second encoder"}
        what = f"the mini-batch's own {recipe.optim.batch_size:,} keys, by {makers[method.key_encoder]}"
    return f"{what}, tau {method.temperature}"


def random_queue(recipe: Recipe) -> list[str]:
    """An explanation of the first steps, in which the queue has random keys; empty without a queue."""
    method = recipe.method
    if method.dictionary != "queue" or method.size is None:
        return []
    steps = math.ceil(method.size / recipe.keys_per_step)
    return [
        "The queue starts with random keys, which are easy to tell from keys of images. So the first steps have a low "
        f"loss and a contrastive accuracy of up to 100 %. Within {plural(steps, 'step')}, keys of images replace the "
        f"random ones: the loss rises towards that of chance ({recipe.collapse_level:.2f}) and the accuracy falls. "
        "After that, a falling loss means learning"
    ]


def batch_norm(recipe: Recipe) -> str:
    """A description of the images that BN computes its batch statistics over."""
    each = recipe.optim.batch_size // max(recipe.groups, 1)
    return {
        "shuffle": f"{recipe.groups} BN groups of {each}, keys shuffled",
        "split": f"{recipe.groups} BN groups of {each}, not shuffled",
        "sync": "one BN group over all ranks",
        "plain": "BN as each rank has it",
    }[recipe.method.bn]


def pieces(recipe: Recipe) -> str:
    if recipe.optim.accumulate == 1:
        return ""
    passes = ", two passes with the gradient of the whole" if recipe.optim.cached else ""
    return f", in {recipe.optim.accumulate} pieces{passes}"


def cautions(
    recipe: Recipe, images: Images, clock: Clock, device: torch.device, *, measured: bool = False
) -> list[str]:
    """Cautions about settings that are allowed, but may not be what the user wants.

    Args:
        measured: the settings were chosen by measuring this machine.
    """
    method = recipe.method
    found: list[str] = []
    if method.dictionary == "queue" and method.size is not None and method.size > 0.5 * len(images):
        found.append(
            "the queue is larger than half of the images: often it has a key of the query's own image, as a negative"
        )
    if method.dictionary == "queue" and method.bn in ("sync", "plain"):
        found.append("query and key share BN statistics, so the encoder can cheat (Sec. 3.3): --set method.bn=shuffle")
    if has_zero_learning_rate(recipe):
        found.append("the learning rate is 0 throughout (optim.lr): the encoder learns nothing")
    if clock.total_steps < 1000 and not measured and not _chosen_by_auto(recipe, clock, device):
        found.append(
            f"{plural(clock.total_steps, 'step')} can show that the run works, but the encoder learns little: train "
            "longer with --epochs N"
        )
    if other := _batch_of_the_learning_rate(recipe):
        lr, batch = recipe.optim.lr, recipe.optim.batch_size
        found.append(
            f"the recipe's learning rate is for {other:,} images per step. In proportion, for {batch:,} images it is "
            f"--set optim.lr.{lr.PEAK}={lr.scaled(batch / other).peak:.4g}"
        )
    if recipe.compute.precision != "fp32" and device.type == "cpu" and not measured:
        found.append("autocast on a CPU without native support is about ten times slower than fp32")
    return found


def _chosen_by_auto(recipe: Recipe, clock: Clock, device: torch.device) -> bool:
    """Whether the run is at least as long as `auto` would choose."""
    if recipe.name != "auto":
        return False
    small, accelerated = recipe.encoder.stem == "3x3", device.type != "cpu"
    return recipe.optim.epochs >= epochs_for(clock.steps_per_epoch, small=small, accelerated=accelerated)


def _batch_of_the_learning_rate(recipe: Recipe) -> int | None:
    """The recipe's own batch size, if the batch size was changed but the learning rate was not."""
    if recipe.name not in RECIPES:
        return None
    own = named(recipe.name).optim
    changed = own.batch_size != recipe.optim.batch_size and own.lr == recipe.optim.lr
    return own.batch_size if changed else None


def make_closing_rows(
    run: RunFolder, recipe: Recipe, *, bad: int, pictures: Sequence[Path] = (), report: Path | None = None
) -> list[tuple[str, str]]:
    """The rows of the box at the end of a run."""
    last, facts = last_values(run), json.loads((run.path / "finished.json").read_text())
    rows = [("time", duration(facts["seconds"]))]
    if "loss" in last:  # missing if the log was lost
        rows.append(
            ("loss", f"{last['loss']:.3f} (chance {recipe.collapse_level:.2f}); "
                     f"contrastive accuracy {100 * last['pretext_top1']:.1f} % (chance {100 / recipe.candidates:.2g})")
        )  # fmt: skip
    if "knn" in last:
        rows.append(
            ("kNN", f"{last['knn']:.1f} % (20 neighbours, a part of --eval-data; for baselines: moco eval knn)")
        )
    if bad:
        rows.append(("bad images", f"{bad} could not be read: {run.path / 'bad_images.csv'}"))
    if pictures:
        rows.append(("pictures", ", ".join(map(str, pictures))))
    if report:
        rows.append(("report", str(report)))
    rows.append(("encoder", str(run.encoder)))
    rows.append(("in Python", f'import moco; encoder = moco.load("{run.path}"); encoder.embed(["a.jpg"])'))
    rows.append(("next", f"moco eval {run.path} LABELLED_FOLDER"))
    return rows
