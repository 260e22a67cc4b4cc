"""The table of a transfer task: one row for each --init, with the gap to a reference row."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moco.recipe_base import diff
from moco.text import plural
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import Baseline

# Settings in which rows may differ although their gap is shown: those of the initial weights, and BN. BN differs only
# with --bn NAME=, as in Table 6 on LVIS; the table then shows the BN of each row.
OF_WEIGHTS = ("name", "source", "seed", "init", "mean", "std", "bn", "encoder.head", "encoder.hidden",
              "encoder.head_bn", "encoder.dim", "encoder.zero_init")  # fmt: skip


@dataclass(frozen=True)
class TrialScores:
    """The scores of all trials from the same initial weights."""

    name: str
    recipe: TransferRecipe
    trials: list[dict[str, float]]  # scores in percent

    def mean(self, metric: str) -> float:
        return statistics.fmean(one[metric] for one in self.trials)

    def spread(self, metric: str) -> float | None:
        """Standard deviation over the trials; None for one trial."""
        values = [one[metric] for one in self.trials]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class TransferComparison:
    """The rows of a table, and the name of the reference row, to which gaps are computed."""

    rows: Sequence[TrialScores]
    reference: str
    columns: Sequence[str]
    baseline: Baseline | None = None  # shown as the last row

    @property
    def metrics(self) -> list[str]:
        """The columns that all trials have scores for. With few classes there is no top-5 accuracy."""
        return [name for name in self.columns if all(name in one for row in self.rows for one in row.trials)]

    def gap(self, row: TrialScores, metric: str) -> float | None:
        """The mean minus that of the reference; None if their settings differ, or for the reference itself."""
        reference = next(one for one in self.rows if one.name == self.reference)
        return None if row is reference or self.list_differences(row) else row.mean(metric) - reference.mean(metric)

    def list_differences(self, row: TrialScores) -> list[str]:
        """The settings in which a row differs from the reference, except those in OF_WEIGHTS."""
        reference = next(one for one in self.rows if one.name == self.reference)
        return [line for line in diff(reference.recipe, row.recipe) if line.split(":")[0] not in OF_WEIGHTS]

    def to_dict(self) -> dict[str, Any]:
        rows = {
            row.name: {
                "trials": [dict(one) for one in row.trials],
                "mean": {name: row.mean(name) for name in self.metrics},
                "std": {name: row.spread(name) for name in self.metrics},
                "gap": {name: self.gap(row, name) for name in self.metrics},
                "bn": row.recipe.bn,
            }
            for row in self.rows
        }
        table: dict[str, Any] = {"reference": self.reference, "metrics": self.metrics, "rows": rows}
        return table if self.baseline is None else table | {"baseline": self.baseline._asdict()}

    def __str__(self) -> str:
        names = [row.name for row in self.rows] + ([] if self.baseline is None else [self.baseline.name])
        width = max(len("weights"), *map(len, names))
        head = [f"{'weights':<{width}}", *(f"{name:>18}" for name in self.metrics)]
        lines = ["".join(head)]
        lines += [
            f"{row.name:<{width}}" + "".join(f"{self._cell(row, name):>18}" for name in self.metrics)
            for row in self.rows
        ]
        if self.baseline is not None:
            scores = (
                f"{self.baseline.scores[name]:.1f}" if name in self.baseline.scores else "" for name in self.metrics
            )
            lines.append(f"{self.baseline.name:<{width}}" + "".join(f"{score:>18}" for score in scores))
        trials = len(self.rows[0].trials)
        lines.append(
            f"percent, {'mean and standard deviation of ' if trials > 1 else ''}{plural(trials, 'trial')}; in brackets "
            f"the gap to {self.reference}"
        )
        lines += [
            f"no gap for {row.name}: its settings differ ({'; '.join(self.list_differences(row))})"
            for row in self.rows if self.list_differences(row)
        ]  # fmt: skip
        if len({row.recipe.bn for row in self.rows}) > 1:
            lines.append(f"BN differs: {', '.join(f'{row.name} {row.recipe.bn}' for row in self.rows)}")
        return "\n".join(lines)

    def _cell(self, row: TrialScores, metric: str) -> str:
        spread, gap = row.spread(metric), self.gap(row, metric)
        text = f"{row.mean(metric):.1f}" + ("" if spread is None else f" ± {spread:.1f}")
        return text + ("" if gap is None else f" ({gap:+.1f})")
