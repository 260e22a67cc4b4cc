"""An encoder judged beside its floors: raw pixels and a random encoder, by the same protocol on the same images."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from moco.data.decode import shown
from moco.data.folder import DataError, Folder, Images, find_images
from moco.data.quarantine import Quarantine
from moco.data.split import Split, split_sources
from moco.encoders import Encoder
from moco.encoders.weights import Weights
from moco.evaluate.device import default_workers
from moco.evaluate.features import NO_LABELS, Features, Pretrained, extract_each, load
from moco.evaluate.floors import Pixels, random_encoder
from moco.evaluate.knn import TEMPERATURE, K, nearest, vote
from moco.evaluate.linear import probe_lbfgs
from moco.evaluate.lowshot import DRAWS, LABELS, lowshot
from moco.evaluate.protocols import PROTOCOLS, probe_sgd
from moco.evaluate.table import Score, Table
from moco.recipe import DataSpec, RecipeError, unknown

PIXELS, RANDOM = "raw pixels", "random encoder"  # names of the floors


@dataclass(frozen=True, eq=False)
class Subject:
    """A row of the table: an encoder, and its features of the images."""

    encoder: Encoder | Pixels
    data: DataSpec
    train: Features
    test: Features


@dataclass(frozen=True, eq=False)
class Subjects:
    """Everything that is compared: computed once for all kinds of evaluation, and for pictures of neighbours."""

    judged: str
    rows: Mapping[str, Subject]  # the floors first
    floors: Sequence[str]
    split: Split
    device: torch.device
    workers: int
    quarantine: Quarantine  # of the images that could not be read
    notes: Sequence[str]


class Kind(Protocol):
    """A way to judge features: the scores of a row, by column."""

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]: ...


@dataclass(frozen=True)
class Knn:
    """Weighted k nearest neighbours, and the nearest one alone."""

    k: int = K
    temperature: float = TEMPERATURE

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]:
        found = nearest(row.train.x, row.test.x, k=self.k, device=among.device)
        answer = vote(found, row.train, row.test, temperature=self.temperature)
        clipped = "" if answer.k == self.k else f"k = {answer.k}: there are no more training images"
        one = vote(found, row.train, row.test, temperature=self.temperature, k=1)
        n = len(row.test.x)
        scores = {f"kNN-{self.k}": Score(answer.accuracy, n, setting=clipped)} if self.k > 1 else {}
        return scores | {"1-NN": Score(one.accuracy, n)}


@dataclass(frozen=True)
class Linear:
    """A linear classifier: L-BFGS on cached features, or a paper's SGD protocol (see protocols.py) on images."""

    protocol: str = "lbfgs"
    lr: float | Literal["sweep"] | None = None  # SGD only, for a batch of 256
    epochs: int | None = None  # SGD only
    batch_size: int | None = None  # SGD only

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]:
        if self.protocol == "lbfgs":
            if (self.lr, self.epochs, self.batch_size) != (None, None, None):
                raise RecipeError(
                    f"lr, epochs and batch size are of the SGD protocols: choose {' or '.join(PROTOCOLS)}"
                )
            probe, what = probe_lbfgs(row.train, row.test, device=among.device), "L2"
        else:
            train, test, _ = among.split
            probe, what = probe_sgd(
                row.encoder, train, test, row.data, protocol=self.protocol, lr=self.lr, epochs=self.epochs,
                batch_size=self.batch_size, device=among.device, workers=among.workers, quarantine=among.quarantine,
            ), "lr"  # fmt: skip
        setting = f"{what} {probe.setting:g}" if probe.tried else ""
        name = "linear" if self.protocol == "lbfgs" else f"linear, {self.protocol}"
        return {name: Score(probe.accuracy, len(row.test.x), setting=setting)}


@dataclass(frozen=True)
class LowShot:
    """A linear classifier and the nearest neighbour with a few labels of each class."""

    labels_per_class: int = LABELS
    draws: int = DRAWS
    seed: int = 0

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]:
        found = lowshot(
            row.train,
            row.test,
            labels_per_class=self.labels_per_class,
            draws=self.draws,
            seed=self.seed,
            device=among.device,
        )
        n, labels = len(row.test.x), f"{self.labels_per_class} labels a class"
        return {
            f"{name}, {labels}": Score(sum(draws) / len(draws), n, draws=draws)
            for name, draws in (("linear", found.linear), ("1-NN", found.nearest))
        }


KINDS: dict[str, type[Knn] | type[Linear] | type[LowShot]] = {"knn": Knn, "linear": Linear, "lowshot": LowShot}


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
        data: see `moco.data.split.split_sources`; with `test`, all of it is for training.
        others: more rows, say of a supervised encoder; each sees the images as it was made to.
        random_encoders: how many seeds of the random floor.
        max_bad: how many unreadable images are too many (below 1: a share); None: 0.1 %, at least 10.

    Raises:
        DataError: no labels, classes that are only in the test images, or too many unreadable images.
    """
    split = split_sources(data) if test is None else _split_of(data, test)
    if split.train.labels is None or split.test.labels is None:
        raise DataError(NO_LABELS)
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
        notes.append(f"{len(quarantine):,} images could not be read: {', '.join(map(shown, list(quarantine.bad)[:3]))}")
    return Subjects(pretrained.name, rows, floors, split, pretrained.device, workers, quarantine, notes)


def judge(kinds: Sequence[Kind], among: Subjects) -> Table:
    """Every row by every kind of evaluation. Raises what the kinds raise."""
    rows = {
        name: {column: score for kind in kinds for column, score in kind.scores(row, among).items()}
        for name, row in among.rows.items()
    }
    truth = among.rows[among.judged].test.known_labels()
    chance = 100 * truth.bincount().max().item() / len(truth)
    return Table(among.judged, among.floors, rows, chance, len(among.split.train.classes), among.split.how, among.notes)


def _floors(pretrained: Pretrained, random_encoders: int) -> tuple[dict[str, Encoder | Pixels], list[str]]:
    """Raw pixels and random encoders, and a note on what could not be had."""
    floors: dict[str, Encoder | Pixels] = {PIXELS: Pixels(pretrained.data).to(pretrained.device)}
    try:
        for seed in range(random_encoders):
            floors[RANDOM if seed == 0 else f"{RANDOM}, seed {seed}"] = random_encoder(pretrained.encoder, seed=seed)
    except RecipeError as error:
        return floors, [f"no {RANDOM} beside it: {error}"]
    return floors, []


def _split_of(data: Images | str | Path | Sequence[str | Path], test: Images | str | Path) -> Split:
    """`data` to learn from, `test` to be judged on, with one numbering of the classes."""
    train = find_images(data) if isinstance(data, str | Path | Sequence) else data
    judged = find_images(test) if isinstance(test, str | Path) else test
    if train.labels is None or judged.labels is None:
        raise DataError(NO_LABELS)
    number = {name: i for i, name in enumerate(train.classes)}
    strange = [name for name in judged.classes if name not in number]
    if strange:
        raise DataError(
            f"{len(strange)} classes of the test images are not among those of the training images, such as "
            f"{', '.join(map(shown, strange[:3]))}: give both the same class folders"
        )
    if list(judged.classes) != list(train.classes):
        if not isinstance(judged, Folder):
            raise DataError("training and test images must have the same classes in the same order")
        numbers = np.array([number[name] for name in judged.classes], dtype=np.int64)
        judged = dataclasses.replace(judged, labels=numbers[judged.labels], classes=train.classes)
    return Split(train, judged, f"{len(train):,} images to learn from, {len(judged):,} to test")
