"""An encoder judged beside its floors: raw pixels and a random encoder, by the same protocol on the same images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import Images
from moco.data.sources.labels import few_of, labelled
from moco.data.sources.overlap import check_disjoint, copies_note
from moco.data.sources.split import split_of, split_sources
from moco.device import default_workers
from moco.encoders import Encoder
from moco.evaluate.features import Pretrained, extract_each, load
from moco.evaluate.floors import Pixels, random_encoder
from moco.evaluate.kinds import KINDS, Kind, Subject, Subjects
from moco.evaluate.table import Table
from moco.recipe import RecipeError, unknown
from moco.weights.encoder_folder import Weights

PIXELS, RANDOM = "raw pixels", "random encoder"  # names of the floors


def evaluate(
    kind: str,
    weights: Weights,
    data: str | Path | Sequence[str | Path],
    *,
    settings: Mapping[str, Any] | None = None,
    test: str | Path | None = None,
    architecture: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
) -> Table:
    """What `moco eval` prints.

    Args:
        kind: a name of KINDS; `settings` are its fields.

    Raises:
        RecipeError: an unknown kind or setting, or weights that cannot be used. DataError: see `subjects`.
    """
    if kind not in KINDS:
        raise RecipeError(unknown("evaluation", kind, list(KINDS)))
    fields = [field.name for field in dataclasses.fields(KINDS[kind])]
    for name in settings or {}:
        if name not in fields:
            raise RecipeError(unknown(f"setting of {kind}", name, fields))
    pretrained = load(weights, architecture=architecture, device=device)
    everything = subjects(pretrained, data, test=test, workers=workers, max_bad=max_bad)
    return judge([KINDS[kind](**(settings or {}))], everything)


def subjects(
    pretrained: Pretrained,
    data: Images | str | Path | Sequence[str | Path],
    *,
    test: Images | str | Path | None = None,
    others: Mapping[str, Pretrained] | None = None,
    random_encoders: int = 1,
    workers: int | None = None,
    max_bad: float | None = None,
) -> Subjects:
    """The features of the encoder, of its floors and of `others`, on labelled training and test images.

    Args:
        data: see `moco.data.sources.split.split_sources`; with `test`, all of it is for training.
        others: more rows, say of a supervised encoder; each sees the images as it was made to.
        random_encoders: how many seeds of the random floor.
        max_bad: how many unreadable images are too many (below 1: a share); None: 0.1 %, at least 10.

    Raises:
        DataError: no labels, classes that are only in the test images, the same files among both, or too many
            unreadable images.
    """
    split = split_sources(data) if test is None else split_of(data, test)
    labelled(split.train, "the training images")
    labelled(split.test, "the test images")
    check_disjoint(split.train, split.test)
    encoders, notes = _floors(pretrained, random_encoders)
    floors = list(encoders)
    encoders[pretrained.name] = pretrained.encoder
    workers = default_workers() if workers is None else workers
    quarantine = Quarantine(None, max_bad, len(split.train) + len(split.test))
    rows: dict[str, Subject] = {}
    for some, of in [
        (encoders, pretrained),
        *(({name: other.encoder}, other) for name, other in (others or {}).items()),
    ]:
        train, test_ = (
            extract_each(some, images, of.data, device=of.device, workers=workers, quarantine=quarantine)
            for images in (split.train, split.test)
        )
        rows |= {name: Subject(some[name], of.data, train[name], test_[name]) for name in some}
    if len(quarantine):
        one = len(quarantine) == 1
        notes.append(f"{len(quarantine):,} image{'' if one else 's'} could not be read: {few_of(list(quarantine.bad))}")
    notes += filter(None, [copies_note(split.train, split.test)])
    return Subjects(pretrained.name, rows, floors, split, pretrained.device, workers, quarantine, notes)


def judge(kinds: Sequence[Kind], among: Subjects) -> Table:
    """Every row by every kind of evaluation. Raises what the kinds raise."""
    rows = {
        name: {column: score for kind in kinds for column, score in kind.scores(row, among).items()}
        for name, row in among.rows.items()
    }
    truth = among.rows[among.judged].test.known_labels()
    chance = 100 * truth.bincount().max().item() / len(truth)
    names = list(among.split.train.classes)
    return Table(among.judged, among.floors, rows, chance, len(names), among.split.how, among.notes, names)


def _floors(pretrained: Pretrained, random_encoders: int) -> tuple[dict[str, Encoder | Pixels], list[str]]:
    """Raw pixels and random encoders, and a note on what could not be had."""
    floors: dict[str, Encoder | Pixels] = {PIXELS: Pixels(pretrained.data).to(pretrained.device)}
    try:
        for seed in range(random_encoders):
            floors[RANDOM if seed == 0 else f"{RANDOM}, seed {seed}"] = random_encoder(pretrained.encoder, seed=seed)
    except RecipeError as error:
        return floors, [f"no {RANDOM} beside it: {error}"]
    return floors, []
