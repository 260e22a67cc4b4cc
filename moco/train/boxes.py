"""What a run says before it begins, and when it has ended."""

import json
from pathlib import Path

import torch

from moco.data.images import Images
from moco.recipe import Recipe
from moco.train.checkpoint import Clock
from moco.train.console import duration
from moco.train.run import RunFolder
from moco.train.watch import summary


def plan(recipe: Recipe, images: Images, clock: Clock, device: torch.device, out: Path) -> list[tuple[str, str]]:
    """The rows of the plan box."""
    method, encoder, size = recipe.method, recipe.encoder, recipe.data.size
    copies, threads = method.size / len(images), recipe.compute.threads or torch.get_num_threads()
    rows = [
        ("images", f"{len(images):,}"),
        ("recipe", f"{recipe.name}  ({recipe.source})"),
        ("encoder", f"{encoder.name}, {encoder.head} head to {encoder.dim}-d, views of {size} x {size} pixels"),
        ("dictionary", f"queue of {method.size:,} keys ({100 * copies:.0f} % of the images), tau {method.temperature}"),
        ("batch", f"{recipe.optim.batch_size} images in {method.bn_groups} BN groups, "
                  f"{'shuffled' if method.shuffle_bn else 'not shuffled'}{', symmetric' if method.symmetric else ''}"),
        ("length", f"{recipe.optim.epochs} epochs x {clock.steps_per_epoch:,} steps = {clock.total_steps:,} steps"),
        ("device", f"{device}, {threads} thread{'s' * (threads > 1)}, {recipe.compute.precision}"),
        ("out", str(out)),
    ]  # fmt: skip
    if copies > 0.5:
        rows.append(
            ("caution", "the queue holds more than half of the images: a query meets other views of its own image")
        )
    if clock.total_steps < 1000:
        rows.append(
            ("caution", f"{clock.total_steps:,} steps show that it works, and teach little: more with --epochs N")
        )
    if recipe.compute.precision != "fp32" and device.type == "cpu":
        rows.append(("caution", "autocast on a CPU without native support is about ten times slower than fp32"))
    return rows


def closing(run: RunFolder, recipe: Recipe, *, bad: int) -> list[tuple[str, str]]:
    """The rows of the closing box."""
    last, facts = summary(run), json.loads((run.path / "finished.json").read_text())
    rows = [
        ("time", duration(facts["seconds"])),
        ("loss", f"{last['loss']:.3f} (all keys alike: {recipe.method.collapse_level:.2f}); "
                 f"own key found among {recipe.method.size + 1:,}: {100 * last['pretext_top1']:.1f} %"),
    ]  # fmt: skip
    if "knn" in last:
        rows.append(("kNN", f"{last['knn']:.1f} % (20 neighbours, a part of --eval-data; for floors: moco eval knn)"))
    if bad:
        rows.append(("bad images", f"{bad} could not be read: {run.path / 'bad_images.csv'}"))
    rows.append(("encoder", str(run.encoder)))
    rows.append(("in Python", f'import moco; encoder = moco.load("{run.path}"); encoder.embed(["a.jpg"])'))
    rows.append(("next", f"moco eval knn {run.path} LABELLED_FOLDER"))
    return rows
