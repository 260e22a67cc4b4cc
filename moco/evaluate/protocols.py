"""The kinds of evaluation and their input. A new kind is a class with `scores` and an entry in EVALUATIONS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.split import Split
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import Features
from moco.evaluate.knn import KNN_K, TEMPERATURE, nearest, vote
from moco.evaluate.linear import probe_lbfgs
from moco.evaluate.linear_sgd import PROTOCOLS, probe_sgd
from moco.evaluate.lowshot import LABEL_DRAWS, LABELS_PER_CLASS, lowshot
from moco.evaluate.progress import Progress
from moco.evaluate.table import Score
from moco.recipe import DataSpec, RecipeError

FEWER = "{k} neighbours requested, but there are only {images} training images: all of them vote"


@dataclass(frozen=True, eq=False)
class Subject:
    """A row of the table: an encoder, and its features of the images."""

    encoder: Encoder | Pixels
    data: DataSpec
    train: Features
    test: Features


@dataclass(frozen=True, eq=False)
class Subjects:
    """All encoders that are compared, with their features: extracted once for all kinds of evaluation."""

    judged: str
    rows: Mapping[str, Subject]  # baselines first
    baselines: Sequence[str]
    split: Split
    device: torch.device
    workers: int
    quarantine: Quarantine  # of the images that could not be read
    notes: Sequence[str]
    progress: Progress = field(default_factory=Progress)


@runtime_checkable
class Evaluation(Protocol):
    """A kind of evaluation: it gives the scores of a row, by column."""

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]: ...


@dataclass(frozen=True)
class Knn:
    """Weighted k nearest neighbours, and the nearest one alone."""

    k: int = KNN_K
    temperature: float = TEMPERATURE

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]:
        found = nearest(row.train.x, row.test.x, k=self.k, device=among.device, progress=among.progress)
        answer = vote(found, row.train, row.test, temperature=self.temperature)
        clipped = "" if answer.k == self.k else FEWER.format(k=self.k, images=answer.k)
        one = vote(found, row.train, row.test, temperature=self.temperature, k=1)
        n = len(row.test.x)
        scores = {f"kNN-{answer.k}": Score(answer.accuracy, n, setting=clipped)} if answer.k > 1 else {}
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
                    f"lr, epochs and batch size apply only to the SGD protocols: choose {' or '.join(PROTOCOLS)}"
                )
            probe, what = probe_lbfgs(row.train, row.test, device=among.device, progress=among.progress), "L2 penalty"
        else:
            train, test, _ = among.split
            probe, what = probe_sgd(
                row.encoder, train, test, row.data, protocol=self.protocol, lr=self.lr, epochs=self.epochs,
                batch_size=self.batch_size, device=among.device, workers=among.workers, quarantine=among.quarantine,
                progress=among.progress,
            ), "lr"  # fmt: skip
        setting = f"{what} {probe.setting:g}" if probe.tried else ""
        name = "linear" if self.protocol == "lbfgs" else f"linear, {self.protocol}"
        return {name: Score(probe.accuracy, len(row.test.x), setting=setting)}


@dataclass(frozen=True)
class LowShot:
    """A linear classifier and the nearest neighbour with a few labels of each class."""

    labels_per_class: int = LABELS_PER_CLASS
    draws: int = LABEL_DRAWS
    seed: int = 0

    def scores(self, row: Subject, among: Subjects) -> dict[str, Score]:
        found = lowshot(
            row.train,
            row.test,
            labels_per_class=self.labels_per_class,
            draws=self.draws,
            seed=self.seed,
            device=among.device,
            progress=among.progress,
        )
        n, labels = len(row.test.x), f"{self.labels_per_class} labels a class"
        return {
            f"{name}, {labels}": Score(sum(draws) / len(draws), n, draws=draws)
            for name, draws in (("linear", found.linear), ("1-NN", found.nearest))
        }


EVALUATIONS: dict[str, type[Knn] | type[Linear] | type[LowShot]] = {"knn": Knn, "linear": Linear, "lowshot": LowShot}
