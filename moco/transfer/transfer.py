"""Compare initial weights on a task: fine-tune from each in several trials, and make one table (Tables 2 to 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch

from moco.atomic_output import local_path
from moco.data.sources.images import DataError
from moco.data.sources.split import draw_fifth
from moco.device import pick_device
from moco.distributed import on_main, session, share
from moco.encoders import Encoder, build_headless
from moco.evaluate.baselines import random_encoder
from moco.files import write_json
from moco.recipe import DataSpec
from moco.text import plural
from moco.train.options import RunKeywords, RunOptions
from moco.train.reporters import Reporter, Silent
from moco.train.watchdog import Watchdog, watchdog
from moco.transfer.check_arguments import RANDOM, TABLE, check_names, check_network, check_paths
from moco.transfer.comparison import TransferComparison, TrialScores
from moco.transfer.early_checks import check_images
from moco.transfer.estimate import SHORT_RUN, iterations_left, measure_tuning
from moco.transfer.fine_tune import describe_tuning, fine_tune
from moco.transfer.models.settings import Norm
from moco.transfer.plan_run import TransferJob, plan_transfer
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import TransferData, TransferTask
from moco.transfer.task_registry import task_named
from moco.weights.encoder_folder import load_encoder


def transfer(
    task: str,
    data: str | Path,
    out: str | Path,
    *,
    init: Mapping[str, str | Path],
    test: str | Path | None = None,
    arch: str | None = None,
    bn: Norm = "sync",
    bn_of: Mapping[str, Norm] | None = None,
    schedule: str | None = None,
    trials: int = 1,
    versus: str | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    split: tuple[str | None, str | None] = (None, None),
    format: str | None = None,
    body_surface: str | Path | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[RunKeywords],
) -> TransferComparison:
    """Fine-tune and score a model from each of the initial weights, with the same settings.

    Each trial is a run in `out`/NAME/trial_0, ..., which the same call resumes. `out` has the table.

    Args:
        task: one of `moco.transfer.task_registry.TASKS`.
        data, test: annotated images (docs/transfer.md); without `test` one in five images of `data` is held out.
        init: weights by name, anything that `moco.load` reads; "random": random parameters, of `model`'s network.
        arch, schedule: the model and the paper's schedule, or a number of iterations; None: the task's default.
        bn: see `build_detector`. bn_of: other values for some of the weights, by name; the table shows them.
        versus: the row that the others are compared with; None: "supervised" if there is one, else the first.
        settings: changes to the recipe, by dotted field name. options: see `moco.train.options.RunOptions`.
        split: the splits to train and to test on. body_surface: for "densepose", the folder of the surface's files.
    Raises RecipeError for settings that do not fit, and DataError for annotations or images that cannot be used.
    """
    chosen, data, out, test = RunOptions(**options), Path(data), local_path(out), None if test is None else Path(test)
    reference = check_names(init, versus, bn_of or {})
    check_network(init, model)
    check_paths(data, out, test, init, overwrite=chosen.overwrite)
    what = task_named(task) if body_surface is None else task_named(task).with_body_surface(Path(body_surface))
    base = what.paper_recipe(arch or what.arch, schedule or what.schedule).but(None, {"bn": bn, **(settings or {})})
    with watchdog(chosen.patience) as dog, session(pick_device(chosen.device)) as place:
        reporter = reporter if reporter is not None and on_main() else Silent()
        annotated = read_and_check(what, data, test, out, reporter, split=split, format=format)
        starts = load_starts(init, model, base, bn_of=bn_of)
        jobs = [[one.plan(i, what, annotated, out, place, chosen) for i in range(trials)] for one in starts]
        rows = fine_tune_all(starts, jobs, reporter, dog)
        table = TransferComparison(rows, reference, what.columns(data, format), what.baseline(annotated))
        return save_table(table, out, chosen)


def read_and_check(
    task: TransferTask[Any],
    data: Path,
    test: Path | None,
    out: Path,
    reporter: Reporter,
    *,
    split: tuple[str | None, str | None],
    format: str | None,
) -> TransferData[Any]:
    """The annotated images: see `read_data`. Rank 0 checks the image files for all ranks: see `check_images`."""
    annotated, how = read_data(task, data, test, split=split, format=format)
    if on_main():
        check_images(out, (annotated.train, annotated.test))
    reporter.say(how)
    return annotated


def fine_tune_all(
    starts: Sequence["Start"], jobs: Sequence[Sequence[TransferJob]], reporter: Reporter, dog: Watchdog
) -> list[TrialScores]:
    """A row for each of the initial weights, with the scores of its trials; without them in a dry run."""
    report_cost(starts, jobs, reporter)
    rows = [TrialScores(start.name, start.recipe, []) for start in starts]
    for start, row, planned in zip(starts, rows, jobs, strict=True):
        for trial, job in enumerate(planned):
            reporter.box(f"{start.name}, trial {trial + 1} of {len(planned)}", describe_tuning(job))
            if not job.options.dry_run:
                row.trials.append(fine_tune(start.encoder(job.recipe.seed), job, reporter, dog))
    return rows


def read_data(
    task: TransferTask[Any],
    data: Path,
    test: Path | None,
    *,
    split: tuple[str | None, str | None],
    format: str | None,
) -> tuple[TransferData[Any], str]:
    """Annotated images to train and to test on, and a sentence that says how they were split."""
    train = task.read(data, ReadOptions(split=split[0]), format=format)
    if test is None and split[1] is None:
        drawn = draw_fifth(task.strata(train))
        if not drawn.any():
            raise DataError(
                f"{plural(len(train), 'image')} are too few to hold out one in five for the test: name test images "
                "with --test"
            )
        held = TransferData(task.choose(train, ~drawn), task.choose(train, drawn))
        return held, f"one in five images is held out for the test: {len(held.test):,} of {len(train):,}"
    options = ReadOptions(split=split[1], classes=tuple(train.classes))
    both = TransferData(train, task.read(test or data, options, format=format))
    check_classes(both)
    return both, f"{len(train):,} images to train on, {len(both.test):,} to test on"


@dataclass(frozen=True)
class Start:
    """Named initial weights, and the recipe of the runs that start from them."""

    name: str
    loaded: Encoder  # if `random`, only its architecture is used
    random: bool
    recipe: TransferRecipe

    def plan(
        self,
        trial: int,
        task: TransferTask[Any],
        data: TransferData[Any],
        out: Path,
        place: torch.device,
        options: RunOptions,
    ) -> TransferJob:
        """Plan the run of one trial. Each trial has its own folder and its own seed."""
        recipe = self.recipe.but(None, {"seed": self.recipe.seed + trial})
        return plan_transfer(task, data, out / self.name / f"trial_{trial}", place, options, recipe)

    def encoder(self, seed: int) -> Encoder:
        """A new copy of the encoder, for fine-tuning. If `random`, its parameters depend on `seed`."""
        if self.random:
            return random_encoder(self.loaded, seed=seed)
        fresh = build_headless(self.loaded.spec, size=self.loaded.size)
        fresh.load_state_dict(self.loaded.state_dict())
        return fresh


def load_starts(
    init: Mapping[str, str | Path],
    model: str | None,
    base: TransferRecipe,
    *,
    bn_of: Mapping[str, Norm] | None = None,
) -> list[Start]:
    """Load the initial weights, in the order of `init`. Random ones are of `model`, or of the first weights' network.

    Raises:
        RecipeError: no network is known. WeightsError: weights that cannot be read.
    """
    loaded = {name: load_encoder(weights) for name, weights in init.items() if str(weights) != RANDOM}
    first = next(iter(loaded.values()), None)
    spec = base.encoder.model_copy(update={"name": model}) if model is not None else first[1].encoder if first else None
    assert spec is not None  # `check_network`
    data = first[1].data if first else DataSpec()
    starts: list[Start] = []
    for name, weights in init.items():
        spec_of, data_of = (loaded[name][1].encoder, loaded[name][1].data) if name in loaded else (spec, data)
        recipe = base.adapt_to_weights(str(weights), spec_of, data_of).but(
            None, {"bn": (bn_of or {}).get(name, base.bn)}
        )
        encoder = loaded[name][0] if name in loaded else build_headless(spec, size=recipe.encoder_size)
        starts.append(Start(name, encoder, name not in loaded, recipe))
    return starts


def report_cost(starts: Sequence[Start], jobs: Sequence[Sequence[TransferJob]], reporter: Reporter) -> None:
    """Report time and memory of all runs, estimated from a few steps with the first weights, unless little is left."""
    every = [job for planned in jobs for job in planned]
    left = [count for count in iterations_left(every) if count]
    total, runs = (int(part) for part in share(f"{sum(left)} {len(left)}".encode()).split())
    if total > SHORT_RUN * runs:
        first = every[0]
        reporter.say(measure_tuning(starts[0].encoder(first.recipe.seed), first).describe(total, runs))


def save_table(table: TransferComparison, out: Path, options: RunOptions) -> TransferComparison:
    """Write the table into `out`, on rank 0 only; a dry run writes nothing."""
    if on_main() and not options.dry_run:
        write_json(out / TABLE, table.to_dict())
    return table


def check_classes(data: TransferData[Any]) -> None:
    """Raises DataError if the test images have other classes than the training images."""
    train, test = (", ".join(part.classes) for part in (data.train, data.test))
    if tuple(data.train.classes) != tuple(data.test.classes):
        raise DataError(
            f"training and test images have different classes: {train}; and {test}. Give images with the same ones"
        )
