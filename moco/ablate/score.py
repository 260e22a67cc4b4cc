"""Evaluate the runs of an ablation in the same way, and their baselines once for each architecture."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moco.ablate.scales import Scale
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.split import Split, split_sources
from moco.encoders import Encoder, build_headless
from moco.evaluate.baselines import Pixels, random_encoder
from moco.evaluate.evaluate import PIXELS, RANDOM, judge
from moco.evaluate.features import extract_each, load_pretrained
from moco.evaluate.protocols import Evaluation, Knn, Linear, LowShot, Subject, Subjects
from moco.evaluate.table import Table
from moco.files import write_json
from moco.recipe import DataSpec, EncoderSpec, Recipe

RANDOM_SEEDS = 3  # random encoders of an architecture
Scores = dict[str, dict[str, Any]]  # column -> what Score.to_dict gives
UNUSED = (
    "head",
    "hidden",
    "head_bn",
    "dim",
    "freeze_patch",
)  # settings that do not change the features of a random encoder


class Judge:
    """The labelled images of an ablation, and how its encoders are scored on them.

    Args:
        labelled: see `moco.data.sources.split.split_sources`.
        stored: the folder for the results of the baselines, one file for each architecture.
    """

    def __init__(
        self,
        labelled: str | Path,
        stored: Path,
        *,
        scale: Scale,
        device: torch.device,
        workers: int,
    ) -> None:
        self.split: Split = split_sources(labelled)
        self.stored, self.device, self.workers = stored, device, workers
        self.kinds: list[Evaluation] = [LowShot(), Knn(k=scale.neighbours), *([Linear()] if scale.linear else [])]

    def __call__(self, run: Path) -> Scores:
        """The scores of the encoder of a finished run, by column. Raises what `moco.load` and `judge` raise."""
        pretrained = load_pretrained(run, device=self.device)
        return self._table({"": pretrained.encoder}, pretrained.data).to_dict()["rows"][""]

    def baselines(self, recipe: Recipe) -> dict[str, Any]:
        """The baselines of the recipe's encoder: {"chance": percent, "rows": row -> scores}."""
        file = self.stored / f"{_baseline_key(recipe)}.json"
        if not file.is_file():
            build = build_headless(recipe.encoder, size=recipe.data.size)
            rows: dict[str, Encoder | Pixels] = {PIXELS: Pixels(recipe.data)}
            rows |= {f"{RANDOM} {seed}": random_encoder(build, seed=seed) for seed in range(RANDOM_SEEDS)}
            rows = {name: row.to(self.device).eval() for name, row in rows.items()}
            table = self._table(rows, recipe.data)
            self.stored.mkdir(parents=True, exist_ok=True)
            write_json(file, {"chance": table.chance, "rows": table.to_dict()["rows"]})
        return json.loads(file.read_text())

    def _table(self, rows: Mapping[str, Encoder | Pixels], data: DataSpec) -> Table:
        train, test = (
            extract_each(rows, images, data, device=self.device, workers=self.workers)
            for images in (self.split.train, self.split.test)
        )
        subjects = {name: Subject(row, data, train[name], test[name]) for name, row in rows.items()}
        quarantine = Quarantine(None, None, len(self.split.train) + len(self.split.test))
        first = next(iter(rows))
        return judge(
            self.kinds, Subjects(first, subjects, [], self.split, self.device, self.workers, quarantine, [])
        )  # fmt: skip


def describe_architecture(recipe: Recipe) -> str:
    """A description of the network, without settings that only training uses."""
    spec, rest = recipe.encoder, EncoderSpec()
    more = [
        f"{name} {getattr(spec, name)}" for name in ("stem", "width", "patch", "position")
        if getattr(spec, name) != getattr(rest, name)
    ]  # fmt: skip
    return ", ".join([spec.name, *more])


def _baseline_key(recipe: Recipe) -> str:
    encoder = {name: value for name, value in recipe.encoder.model_dump().items() if name not in UNUSED}
    data = {name: value for name, value in recipe.data.model_dump().items() if name != "views"}
    return hashlib.sha256(json.dumps([encoder, data], sort_keys=True).encode()).hexdigest()[:12]
