"""Plan: measure this machine on these images, and give runs to choose from, each as a command."""

import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moco.comparison.on_machine import weights_on_machine
from moco.data.remote.urls import redact
from moco.data.sources.open import Sources, open_images
from moco.device import pick_device, workers_for
from moco.planning.budget import budget_text, parse_budget
from moco.planning.choose import MAX_EPOCHS, NEEDED
from moco.planning.describe import STARVED, format_plan_table, megapixels
from moco.recipes.auto import AUTO_PREFIX
from moco.text import TEXT_WIDTH, duration, plural
from moco.train.checkpoint import Clock
from moco.train.plan_budget import Alternative, BudgetPlan, plan_budget

DEFAULT = "1h"  # the budget if none is given
KEEP = 4  # checkpoints in a run's folder, one of them being written
FEW_COPIES = 0.99  # share of different pictures from which copies are not mentioned
LARGE = 1e6  # [pixels] of a photograph that is better stored smaller


@dataclass(frozen=True)
class Plan:
    """Runs that fit into a budget, one of which is recommended."""

    found: BudgetPlan
    data: str  # as it stands in a command
    out: str
    images: int
    start: str | None  # weights on this machine to start from

    @property
    def notes(self) -> list[str]:
        """Sentences on what to know and do."""
        one, facts = self.found.chosen, self.found.facts
        notes = [_why(one, self.found)]
        if one.cost.waited > STARVED:
            notes.append(_how_to_read_faster(one, self.found, self.data))
        elif one.recipe.data.shrink is not None:
            notes.append(
                f"Images are read once and kept in memory at {one.recipe.data.shrink} pixels: reading one takes "
                f"{1000 * facts.read:.2g} ms"
            )
        if facts.distinct < FEW_COPIES * self.images:
            notes.append(
                f"About {facts.distinct:,} of {self.images:,} images are different (estimated from {facts.images:,}): "
                "the queue is sized for these, because copies of a query's image would count as negatives. moco check "
                "--duplicates lists them"
            )
        if self.start is not None:
            notes.append(
                f"{self.start} is on this machine. Pre-trained weights are often a better start than random "
                "parameters. Its network was not measured; this command measures it, and stops if the budget is too "
                f"short for it: {self.command_from(self.start)}"
            )
        return notes

    def command(self, one: Alternative) -> str:
        """The command of a run, with the settings that were measured to be fastest."""
        recipe = one.recipe
        options = [f"--recipe {AUTO_PREFIX}{one.scale}", f"--epochs {recipe.optim.epochs:g}"]
        options += [f"--batch-size {recipe.optim.batch_size}", f"--set compute.threads={recipe.compute.threads}"]
        if recipe.data.shrink is not None:
            options.append(f"--set data.shrink={recipe.data.shrink}")
        if recipe.data.decode != "exact":
            options.append(f"--set data.decode={recipe.data.decode}")
        options.append(f"--set method.size={recipe.method.size}")
        if recipe.compute.precision != "fp32":
            options.append(f"--precision {recipe.compute.precision}")
        return " ".join([f"moco pretrain {self.data} --out {self.out}", *options])

    def command_from(self, weights: str) -> str:
        """The command of a run that starts from `weights`."""
        budget = budget_text(self.found.budget)
        return f"moco pretrain {self.data} --out {self.out} --model {weights} --init {weights} --budget {budget}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts, found = self.found.facts, self.found
        return {
            "budget": found.budget, "images": self.images, "distinct": facts.distinct, "pixels": round(facts.pixels),
            "seconds_to_read": facts.read, "recommended": found.chosen.scale, "notes": self.notes,
            "alternatives": [
                {
                    "scale": one.scale, "network": one.recipe.encoder.name, "width": one.recipe.encoder.width,
                    "size": one.recipe.data.size, "batch_size": one.recipe.optim.batch_size,
                    "epochs": one.recipe.optim.epochs, "steps": one.steps, "K": one.recipe.method.size,
                    "m": one.recipe.method.momentum(0, 1), "lr": one.recipe.optim.lr.peak,
                    "precision": one.recipe.compute.precision, "threads": one.recipe.compute.threads,
                    "images_per_second": 1 / one.image.step, "seconds": one.seconds, "memory": one.memory,
                    "disk": KEEP * one.cost.disk, "command": self.command(one),
                }
                for one in found.alternatives
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        """For people: the table, the recommendation, and the commands."""
        facts, chosen = self.found.facts, self.found.chosen
        lines = [
            _wrapped(
                f"{self.images:,} images of about {megapixels(facts.pixels)}; budget {duration(self.found.budget)}, "
                f"of which measuring takes {duration(self.found.measured)}"
            ),
            "",
            format_plan_table([_column(one, recommended=one is chosen) for one in self.found.alternatives]),
            "time: of the whole run, from reading the first image to the files at its end",
            "",
            *map(_wrapped, self.notes),
            "",
            f"recommended ({chosen.scale}):",
            f"  {self.command(chosen)}",
        ]
        for one in self.found.alternatives:
            if one is not chosen:
                lines += [f"{one.scale}:", f"  {self.command(one)}"]
        return "\n".join(lines)


def plan(
    data: Sources,
    *,
    budget: str | float = DEFAULT,
    out: str = "runs/new",
    device: str = "auto",
    workers: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Measure this machine on the images for at most a minute, and plan runs that end within `budget`.

    Args:
        data: as for `moco.pretrain`.
        budget: [s], or text such as "10m" or "8h".
        out: the run folder in the commands.
        report: called with a line on what is being measured.

    Raises:
        RecipeError: the budget is too short, or the device is not available. DataError: no images.
    """
    seconds = parse_budget(budget)
    place, images = pick_device(device), open_images(data)
    found = plan_budget(images, place, workers=workers_for(workers), budget=seconds, report=report)
    sources = data if isinstance(data, list | tuple) else [data]
    names = " ".join(shlex.quote(redact(str(one))) if isinstance(one, str | Path) else "DATA" for one in sources)
    start = next((name for name in weights_on_machine() if name.startswith(("timm/", "torchvision/"))), None)
    return Plan(found, names, shlex.quote(out), len(images), start)


def _wrapped(note: str) -> str:
    """`note` in lines of WIDTH characters; a command at its end has a line of its own, to be copied."""
    text, mark, command = note.partition(": moco ")
    lines = textwrap.fill(text + mark[:1], TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"{lines}\n  moco {command}" if mark else lines


def _why(one: Alternative, found: BudgetPlan) -> str:
    """Why this alternative is recommended."""
    seen, dearer = one.seen, found.alternatives[-1] is not one
    what = f"The {one.scale} network sees {seen:,.0f} images in {plural(one.steps, 'step')}"
    if one.recipe.optim.epochs >= MAX_EPOCHS:
        return f"{what}: the longest schedule of the papers, {one.recipe.optim.epochs:g} epochs, ends before the budget"
    if one.seen < NEEDED[one.scale] and one.cost.waited > STARVED:
        return f"{what}, about as many as a smaller one: reading them takes most of the time"
    return f"{what}; larger ones would see too few to learn more" if dearer else what


def _how_to_read_faster(one: Alternative, found: BudgetPlan, data: str) -> str:
    facts, side = found.facts, 2 * one.recipe.data.size
    text = f"Reading images takes most of the time: {1000 * facts.read:.2g} ms for one of {megapixels(facts.pixels)}"
    text += ", less for JPEG files, which this run decodes smaller" if one.recipe.data.decode == "scaled" else ""
    if facts.pixels > LARGE:
        ratio = facts.pixels / side**2
        text += (
            f". Smaller copies, made once, have 1/{ratio:.0f} of the pixels and are read that much faster: "
            f"moco pack {data} --to shards/ --resize {side}"
        )
    return text


def _column(one: Alternative, *, recommended: bool) -> list[tuple[str, str]]:
    """The rows of an alternative in the table."""
    recipe, clock = one.recipe, Clock(1, one.steps)
    memory = "-" if one.memory is None else f"{one.memory / 2**30:.1f} GiB"
    width = "" if recipe.encoder.width == 1 else f" x {recipe.encoder.width:g}"
    return [
        ("", f"{one.scale} *" if recommended else one.scale),
        ("network", f"{recipe.encoder.name}{width}"),
        ("views", f"{recipe.data.size} px"),
        ("mini-batch", f"{recipe.optim.batch_size}"),
        ("epochs", f"{recipe.optim.epochs:,g}"),
        ("steps", f"{clock.total_steps:,}"),
        ("K", f"{recipe.method.size:,}"),
        ("m", f"{recipe.method.momentum(0, 1):.4g}"),
        ("learning rate", f"{recipe.optim.lr.peak:.3g}"),
        ("precision", f"{recipe.compute.precision}"),
        ("threads", f"{recipe.compute.threads}"),
        ("images/s", f"{1 / one.image.step:,.0f}"),
        ("time", duration(one.seconds)),
        ("memory", memory),
        ("disk", f"{KEEP * one.cost.disk / 2**20:,.0f} MiB"),
    ]
