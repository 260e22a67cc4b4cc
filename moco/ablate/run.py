"""Run the recipes of a family, evaluate each, and store the results: a stopped ablation can be resumed."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moco.ablate.arguments import Places, check_results_replaceable, choose_data
from moco.ablate.families import Family, family
from moco.ablate.measure import measures
from moco.ablate.results import AblationResult, AblationRow
from moco.ablate.scales import Scale, at_scale
from moco.ablate.score import Judge, describe_architecture
from moco.atomic_output import local_path
from moco.data.remote.urls import redact
from moco.data.sources.images import Images
from moco.data.sources.open import open_images
from moco.device import pick_device, workers_for
from moco.evaluate.evaluate import PIXELS, RANDOM
from moco.files import read_json, write_json
from moco.recipe import Recipe, RecipeError
from moco.schedule import Constant
from moco.train.after_step import Diverged
from moco.train.existing_folder import state_of
from moco.train.pretrain import pretrain
from moco.train.reporters import Reporter, Silent
from moco.train.run_folder import RunFolder

SHORT = 2000  # steps: runs of up to twice as many save a checkpoint in their middle, for `measures`


@dataclass(frozen=True)
class Bench:
    """What all runs of an ablation share: folder, images, evaluation."""

    runs: Path
    images: Images
    judge: Judge
    device: torch.device
    workers: int
    reporter: Reporter


def ablate(
    name: str,
    *,
    scale: str = "demo",
    data: Places | None = None,
    eval_data: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path = "runs/ablate",
    device: str = "auto",
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> AblationResult:
    """Train and evaluate every recipe of the family `name` with every seed, and write `out`/SCALE/NAME.json.

    A run is identified by its settings: runs of other ablations are used again, and an interrupted run is resumed.

    Args:
        scale: a name of `moco.ablate.scales.ABLATION_SCALES`; "demo" has its own images.
        data: folders or list files of images to train on.
        eval_data: labelled images to evaluate on: a folder with train/ and test/ (or val/).
        out: the folder of all ablations.

    Raises:
        RecipeError: an unknown ablation or scale, data that is missing or not expected, or results of other data in
            `out`. Errors of pre-training and evaluation, except Diverged, which counts as a result.
    """
    described, chosen, folder = family(name, scale=scale), at_scale(scale), local_path(out) / scale
    train, labelled = choose_data(scale, data, eval_data)
    check_results_replaceable(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    check_same_data(folder / "data.json", {"data": redact(str(train)), "eval_data": redact(str(labelled))})
    place = pick_device(
        "cpu" if scale == "demo" and device == "auto" else device
    )  # a GPU does not speed up such a small network
    workers = workers_for(workers)
    judge = Judge(labelled, folder / "baselines", scale=chosen, device=place, workers=workers)
    bench = Bench(folder / "runs", open_images(train), judge, place, workers, reporter or Silent())
    done: dict[str, list[dict[str, Any]]] = {cell.name: [] for cell in described.cells}
    for seed in seeds:
        for cell in described.cells:
            recipe = described.recipe(cell, seed=seed)
            done[cell.name].append(train_once(recipe, bench, f"{name}: {cell.name}, seed {seed}"))
            write_json(folder / f"{name}.json", collect_result(described, chosen, done, bench).to_dict())
    return collect_result(described, chosen, done, bench)


def train_once(recipe: Recipe, bench: Bench, what: str) -> dict[str, Any]:
    """The result of a run: read from its folder if it exists, else by training and evaluating."""
    folder = bench.runs / run_name(recipe)
    file = folder / "scores.json"
    if not file.is_file():
        bench.reporter.say(f"{what}: {folder}")
        write_json(file, {"run": folder.name, "seed": recipe.seed} | train_and_score(recipe, folder, bench))
    return json.loads(file.read_text())


def train_and_score(recipe: Recipe, folder: Path, bench: Bench) -> dict[str, Any]:
    """Scores, measures and cost of a run. A run that diverged is a result too: {"failed": why}."""
    half = round(recipe_facts(recipe, len(bench.images))["steps"]) // 2
    whole, start = not state_of(RunFolder(folder)).started, time.process_time()
    try:
        pretrain(
            bench.images, folder, recipe=recipe, device=str(bench.device), workers=bench.workers,
            save_every=half if 0 < half <= SHORT else None, compare=False, reporter=bench.reporter,
        )  # fmt: skip
        trained = time.process_time()
        scores = bench.judge(folder)
    except (Diverged, FloatingPointError) as error:
        return {"failed": str(error)}
    facts = measures(RunFolder(folder), bench.images, device=bench.device, workers=bench.workers)
    spent = {"training": trained - start, "judging": time.process_time() - trained}
    cost = (
        {part: round(seconds, 1) for part, seconds in spent.items()} if whole else {}
    )  # of a resumed run, a part is not known
    return {"scores": scores, "measures": facts, "cpu_seconds": cost}


def collect_result(
    described: Family, scale: Scale, done: dict[str, list[dict[str, Any]]], bench: Bench
) -> AblationResult:
    """The family's cells with the results of their runs so far, their baselines, and remarks."""
    recipes = {cell.name: described.recipe(cell) for cell in described.cells}
    baselines = {describe_architecture(recipe): bench.judge.baselines(recipe) for recipe in recipes.values()}
    facts = {name: recipe_facts(recipe, len(bench.images)) for name, recipe in recipes.items()}
    rows = [
        AblationRow(
            cell.label, cell.series, described.paper.get((cell.series, cell.label)), facts[cell.name], done[cell.name]
        )
        for cell in described.cells
    ]
    labels = dict.fromkeys([cell.label for cell in described.cells] + [label for _, label in described.paper])
    said = described.remark.format(
        steps=round(max(fact["steps"] for fact in facts.values())), epochs=described.base.optim.epochs,
        oldest=round(max(fact.get("age", 0) for fact in facts.values())),
    )  # fmt: skip
    some = next(iter(baselines.values()))
    return AblationResult(
        described.name, described.title, scale.name, described.axis, described.log,
        places={label: described.place(label) for label in labels} if described.place else {},
        columns=[column for column in some["rows"][PIXELS] if not column.startswith("1-NN")],
        measures=list(described.measures), rows=rows,
        paper=[(*at, value) for at, value in described.paper.items() if not isinstance(value, str)],
        source=described.source, chance=some["chance"], baselines=baseline_rows(baselines),
        says=[one for one in (said, scale.says) if one],
    )  # fmt: skip


def recipe_facts(recipe: Recipe, num_images: int) -> dict[str, float]:
    """Numbers from the recipe: optimizer steps; steps that f_k averages over; age of the queue's oldest key."""
    method, batch = recipe.method, recipe.optim.batch_size
    facts: dict[str, float] = {"steps": recipe.optim.epochs * (num_images // batch)}
    if isinstance(method.momentum, Constant) and method.key_encoder == "momentum":
        facts["memory"] = 1 / (1 - method.momentum.value)
    if method.dictionary == "queue":
        facts["age"] = (method.size or 0) / recipe.keys_per_step
    return facts


def baseline_rows(baselines: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Raw pixels, and the random encoders of each architecture under one name: row -> column -> accuracies."""
    found: dict[str, dict[str, list[float]]] = {}
    for network, scores in baselines.items():
        for row, columns in scores["rows"].items():
            name = PIXELS if row == PIXELS else RANDOM if len(baselines) == 1 else f"{RANDOM}, {network}"
            for column, score in columns.items():
                values = found.setdefault(name, {}).setdefault(column, [])
                if row != PIXELS or not values:
                    values.append(score["accuracy"])
    return found


def check_same_data(file: Path, now: dict[str, str]) -> None:
    """Raise RecipeError if the folder has results of other images."""
    if not os.path.lexists(file):
        write_json(file, now)
    elif (was := read_json(file)) != now:
        raise RecipeError(f"{file.parent} has results of {was}, not of {now}: give another --out")


def run_name(recipe: Recipe) -> str:
    """The name of a run, from its settings that differ from the defaults, so that a new setting changes no old name."""
    rest = Recipe(name="").fields()
    settings = {name: value for name, value in recipe.fields().items() if name not in ("name", "source")}
    chosen = sorted(f"{name}={value!r}" for name, value in settings.items() if name not in rest or rest[name] != value)
    return hashlib.sha256("\n".join(chosen).encode()).hexdigest()[:12]
