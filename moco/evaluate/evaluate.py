"""Evaluate an encoder beside its baselines, raw pixels and a random encoder, on the same images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import DataError
from moco.data.sources.labels import require_labels
from moco.data.sources.open import Sources
from moco.data.sources.overlap import check_disjoint, copies_note
from moco.data.sources.split import Split, split_of, split_sources
from moco.device import workers_for
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels, random_encoder
from moco.evaluate.cache import FeatureCache, cache_of, extract_each_cached
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.progress import Progress
from moco.evaluate.protocols import EVALUATIONS, Evaluation, Subject, Subjects
from moco.evaluate.table import Score, Table
from moco.recipe import RecipeError, unknown
from moco.text import first_few, plural
from moco.weights.encoder_folder import Weights

ALL = "all"  # kinds of evaluation
PIXELS, RANDOM = "raw pixels", "random encoder"  # names of the baselines


def evaluate(
    kind: str,
    weights: Weights,
    data: Sources,
    *,
    settings: Mapping[str, Any] | None = None,
    test: Sources | None = None,
    architecture: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    cached: bool = True,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Table:
    """The table that `moco eval` prints.

    Args:
        kind: a name in KINDS, or ALL: all kinds; those that need more images are skipped, with a note.
        settings: values for fields of the kind.
        cached: store features in the folder of the weights, if they are a folder, and reuse them.
        say: called with a sentence about stored features that cannot be used.

    Raises:
        RecipeError: an unknown kind or setting, or weights that cannot be used. DataError: see `subjects`.
    """
    kinds, progress = _kinds(kind, settings or {}), progress or Progress()
    progress.stage("loading the encoder")
    pretrained = load_pretrained(weights, architecture=architecture, device=device)
    cache = cache_of(weights, say) if cached else None
    everything = subjects(
        pretrained, data, test=test, workers=workers, max_bad=max_bad, cache=cache, progress=progress
    )  # fmt: skip
    return judge(kinds, everything, skip=kind == ALL)


def _kinds(kind: str, settings: Mapping[str, Any]) -> list[Evaluation]:
    """The evaluations called `kind`, each with its own part of the settings. Raises RecipeError."""
    if kind not in (ALL, *EVALUATIONS):
        raise RecipeError(unknown("evaluation", kind, [ALL, *EVALUATIONS]))
    chosen = list(EVALUATIONS) if kind == ALL else [kind]
    fields = {name: {field.name for field in dataclasses.fields(EVALUATIONS[name])} for name in chosen}
    known = sorted(set().union(*fields.values()))
    for name in settings:
        if name not in known:
            raise RecipeError(unknown(f"setting of {kind}", name, known))
    return [
        EVALUATIONS[name](**{key: value for key, value in settings.items() if key in fields[name]}) for name in chosen
    ]


def subjects(
    pretrained: Pretrained,
    data: Sources,
    *,
    test: Sources | None = None,
    others: Mapping[str, Pretrained] | None = None,
    random_encoders: int = 1,
    workers: int | None = None,
    max_bad: float | None = None,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Subjects:
    """The features of the encoder, of its baselines and of `others`, on labelled training and test images.

    Args:
        data: see `moco.data.sources.split.split_sources`; with `test`, all of it is for training.
        others: more rows, such as a supervised encoder; each has its own size and normalization of images.
        random_encoders: number of random encoders, each with its own seed.
        max_bad: unreadable images to tolerate: a number, or a share below 1; None: 0.1 %, at least 10.
        cache: where features are stored; None: they are computed.

    Raises:
        DataError: no labels, classes that are only in the test images, the same files among both, or too many
            unreadable images.
    """
    progress = progress or Progress()
    progress.stage("looking for images")
    split = split_sources(data, groups=pretrained.data.groups) if test is None else split_of(data, test)
    require_labels(split.train, "the training images")
    require_labels(split.test, "the test images")
    check_disjoint(split.train, split.test)
    encoders, notes = _build_baselines(pretrained, random_encoders)
    baselines = list(encoders)
    encoders[pretrained.name] = pretrained.encoder
    workers = workers_for(workers)
    quarantine = Quarantine(None, max_bad, len(split.train) + len(split.test))
    compared = [(encoders, pretrained), *(({name: one.encoder}, one) for name, one in (others or {}).items())]
    rows: dict[str, Subject] = {}
    for some, of in compared:
        rows |= _extract(
            some, of, split, workers=workers, quarantine=quarantine, cache=cache, progress=progress
        )  # fmt: skip
    if len(quarantine):
        notes.append(f"{plural(len(quarantine), 'image')} could not be read: {first_few(list(quarantine.bad))}")
    progress.stage("looking for test images among the training images")
    notes += filter(None, [copies_note(split.train, split.test)])
    return Subjects(pretrained.name, rows, baselines, split, pretrained.device, workers, quarantine, notes, progress)


def _extract(
    encoders: Mapping[str, Encoder | Pixels],
    like: Pretrained,
    split: Split,
    *,
    workers: int,
    quarantine: Quarantine,
    cache: FeatureCache | None,
    progress: Progress,
) -> dict[str, Subject]:
    """A row for each encoder: its features of training and test images, prepared as for `like`, on its device."""
    train, test = (
        extract_each_cached(
            encoders, images, like.data, device=like.device, workers=workers, quarantine=quarantine, cache=cache,
            progress=progress,
        )
        for images in (split.train, split.test)
    )  # fmt: skip
    return {name: Subject(encoder, like.data, train[name], test[name]) for name, encoder in encoders.items()}


def judge(kinds: Sequence[Evaluation], among: Subjects, *, skip: bool = False) -> Table:
    """Evaluate every row by every kind.

    Args:
        skip: skip a kind that is not possible with these images, with a note.

    Raises:
        DataError: a kind is not possible with these images; with `skip`, no kind is.
    """
    rows: dict[str, dict[str, Score]] = {name: {} for name in among.rows}
    notes = list(among.notes)
    for kind in kinds:
        try:
            scores = _scores(kind, among)
        except DataError as error:
            if not skip or (kind is kinds[-1] and not any(rows.values())):
                raise
            notes.append(f"{_name_of_kind(kind)} not measured: {error}")
            continue
        for name in rows:
            rows[name] |= scores[name]
    truth = among.rows[among.judged].test.known_labels()
    chance = 100 * truth.bincount().max().item() / len(truth)
    names = list(among.split.train.classes)
    return Table(among.judged, among.baselines, rows, chance, len(names), among.split.how, notes, names)


def _scores(kind: Evaluation, among: Subjects) -> dict[str, dict[str, Score]]:
    """The scores of each row, by column."""
    found: dict[str, dict[str, Score]] = {}
    for name, row in among.rows.items():
        among.progress.stage(f"{_name_of_kind(kind)}, {name}")
        found[name] = kind.scores(row, among)
    return found


def _name_of_kind(kind: Evaluation) -> str:
    return next((name for name, one in EVALUATIONS.items() if isinstance(kind, one)), type(kind).__name__)


def _build_baselines(pretrained: Pretrained, random_encoders: int) -> tuple[dict[str, Encoder | Pixels], list[str]]:
    """Raw pixels and random encoders, and a note if there is no random encoder."""
    baselines: dict[str, Encoder | Pixels] = {PIXELS: Pixels(pretrained.data).to(pretrained.device)}
    try:
        for seed in range(random_encoders):
            baselines[RANDOM if seed == 0 else f"{RANDOM}, seed {seed}"] = random_encoder(pretrained.encoder, seed=seed)
    except RecipeError as error:
        return baselines, [f"{RANDOM} not measured: {error}"]
    return baselines, []
