"""Compare initial weights on a task: the same fine-tuning from each, several trials, one table (Tables 2 to 6)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from moco.data.sources.images import DataError
from moco.data.sources.split import draw_fifth
from moco.device import pick_device
from moco.distributed import on_main, session
from moco.encoders import Encoder, build_headless
from moco.evaluate.baselines import random_encoder
from moco.files import write_json
from moco.recipe import EncoderSpec
from moco.recipe_error import RecipeError
from moco.text import plural
from moco.train.options import RunKeywords, RunOptions
from moco.train.reporters import Reporter, Silent
from moco.train.watchdog import watchdog
from moco.transfer.comparison import Comparison, Row
from moco.transfer.fine_tune import describe, fine_tune
from moco.transfer.plan_run import TransferData, plan_transfer
from moco.transfer.readers.formats import OBJECTS, read_scenes, recognise
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import Arch, Norm, Task
from moco.transfer.recipes import transfer_recipe
from moco.transfer.scenes import SceneSet
from moco.weights.encoder_folder import load_encoder

RANDOM = "random"


def transfer(
    task: Task,
    data: str | Path,
    out: str | Path,
    *,
    init: Mapping[str, str | Path],
    test: str | Path | None = None,
    arch: Arch = "fpn",
    bn: Norm = "sync",
    schedule: str = "24k",
    trials: int = 1,
    versus: str | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    split: tuple[str | None, str | None] = (None, None),
    format: str | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[RunKeywords],
) -> Comparison:
    """Fine-tune and score a detector from each of the initial weights, with the same settings.

    Each trial has a run folder of its own, `out`/NAME/trial_0, which the same call resumes. The table is in `out`.

    Args:
        data, test: annotated images (docs/transfer.md); without `test` one in five images of `data` is held out.
        init: weights by name, anything that `moco.load` reads; "random" are random parameters.
        bn: see `moco.transfer.models.build.build_detector`.
        schedule: a name of `moco.transfer.recipes.SCHEDULES`, or a number of iterations.
        versus: the row that gaps are taken to; None: "supervised" if there is one, else the first.
        model: the network, where all weights are random.
        settings: changes to the recipe, by dotted field name.
        split: names of the parts of `data` and `test` to read, for formats with several.
        options: see `moco.train.options.RunOptions`.

    Raises:
        RecipeError: settings that do not fit. DataError: annotations or images that cannot be used.
    """
    chosen = RunOptions(**options)
    reference = _reference(list(init), versus)
    with watchdog(chosen.patience) as dog, session(pick_device(chosen.device)) as place:
        reporter = reporter if reporter is not None and on_main() else Silent()
        scenes, how = read_data(Path(data), None if test is None else Path(test), split=split, format=format)
        reporter.say(how)
        base = transfer_recipe(task, arch, schedule).but(None, {"bn": bn, **(settings or {})})
        encoders = load_encoders(init, model)
        rows: list[Row] = []
        for name, (encoder, recipe) in encoders.items():
            recipe = base.but(None, {"init": str(init[name]), **recipe})
            found: list[dict[str, float]] = []
            for trial in range(trials):
                own = recipe.but(None, {"seed": base.seed + trial})
                start = random_encoder(encoder, seed=own.seed) if str(init[name]) == RANDOM else _copy(encoder)
                job = plan_transfer(scenes, Path(out) / name / f"trial_{trial}", place, chosen, own)
                reporter.box(f"{name}, trial {trial + 1} of {trials}", describe(job))
                if not chosen.dry_run:
                    found.append(fine_tune(start, job, reporter, dog))
            rows.append(Row(name, recipe, found))
        if chosen.dry_run or not on_main():
            return Comparison([replace(row, trials=()) for row in rows], reference, ())
        table = Comparison(rows, reference, metrics_of(task, Path(data), format))
        write_json(Path(out) / "table.json", table.to_dict())
        return table


def read_data(
    data: Path, test: Path | None, *, split: tuple[str | None, str | None], format: str | None
) -> tuple[TransferData, str]:
    """Annotated images to train and to test on, and a sentence on how they were divided."""
    train = read_scenes(data, ReadOptions(split=split[0]), format=format)
    if test is None and split[1] is None:
        drawn = draw_fifth(np.zeros(len(train), dtype=np.int64))
        if not drawn.any():
            raise DataError(f"{plural(len(train), 'image')} are too few to hold out one in five: give --test")
        held = TransferData(_those(train, ~drawn), _those(train, drawn))
        return held, f"one in five images is held out for the test: {len(held.test):,} of {len(train):,}"
    options = ReadOptions(split=split[1], classes=train.classes)
    found = TransferData(train, _same_classes(train, read_scenes(test or data, options, format=format)))
    return found, f"{len(train):,} images to train on, {len(found.test):,} to test on"


def load_encoders(init: Mapping[str, str | Path], model: str | None) -> dict[str, tuple[Encoder, dict[str, Any]]]:
    """By name, each encoder and the settings that come with it. Random ones are of the first one's network."""
    loaded = {name: load_encoder(weights) for name, weights in init.items() if str(weights) != RANDOM}
    first = next(iter(loaded.values()), None)
    if first is None and model is None:
        raise RecipeError("all weights are random: name the network with --model, such as resnet50")
    plain = build_headless(EncoderSpec(name=model)) if model is not None else first[0] if first else None
    assert plain is not None
    found: dict[str, tuple[Encoder, dict[str, Any]]] = {}
    for name in init:
        if name in loaded:
            encoder, config = loaded[name]
            found[name] = encoder, {"encoder": config.encoder, "mean": config.data.mean, "std": config.data.std}
        else:
            data = {"mean": first[1].data.mean, "std": first[1].data.std} if first and model is None else {}
            found[name] = plain, {"encoder": plain.spec, **data}
    return found


def metrics_of(task: Task, data: Path, format: str | None) -> tuple[str, ...]:
    """The columns of the table: VOC's 11-point AP of boxes on VOC, else COCO's AP of boxes, masks or keypoints."""
    voc = task == "detect" and (format or recognise(data, OBJECTS)) == "voc"
    if voc:
        return ("AP50_voc", "AP_voc", "AP75_voc")
    suffix = {"instance": "_mask", "keypoints": "_keypoints"}.get(task, "")
    return tuple(f"{name}{suffix}" for name in ("AP", "AP50", "AP75"))


def _reference(names: list[str], versus: str | None) -> str:
    if not names:
        raise RecipeError("no weights to start from: give --init NAME=WEIGHTS, such as --init random")
    if versus is not None and versus not in names:
        raise RecipeError(f"--versus expects one of {', '.join(names)}, got {versus!r}")
    return versus or ("supervised" if "supervised" in names else names[0])


def _same_classes(train: SceneSet, test: SceneSet) -> SceneSet:
    if train.classes != test.classes:
        raise DataError(
            f"the classes to train on ({', '.join(train.classes)}) are not those to test on ({', '.join(test.classes)})"
        )
    return test


def _those(scenes: SceneSet, chosen: np.ndarray) -> SceneSet:
    return replace(scenes, scenes=tuple(scenes.scenes[index] for index in np.flatnonzero(chosen)))


def _copy(encoder: Encoder) -> Encoder:
    """The same weights in a network of its own: fine-tuning changes it."""
    fresh = build_headless(encoder.spec, size=encoder.size)
    fresh.load_state_dict(encoder.state_dict())
    return fresh
