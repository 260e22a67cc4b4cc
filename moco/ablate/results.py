"""Results of an ablation: the runs of each cell, their means and spreads, and the baselines."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AblationRow:
    """A cell and its runs, one for each seed."""

    label: str
    series: str
    paper: float | str | None  # ImageNet linear top-1 [percent], or a word such as "fails"
    facts: Mapping[str, float]  # computed from the recipe: steps, memory, age
    runs: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.series}, {self.label}" if self.series else self.label

    @property
    def failed(self) -> int:
        """The number of runs that diverged."""
        return sum("failed" in run for run in self.runs)

    def scores(self, column: str) -> list[float]:
        """Accuracies [percent] of the runs that did not diverge."""
        return [run["scores"][column]["accuracy"] for run in self.runs if "scores" in run]

    def uncertainty(self, column: str) -> float:
        """Standard deviation over the runs; for a single run, the standard error from the choice of test images."""
        values, runs = self.scores(column), [run for run in self.runs if "scores" in run]
        return runs[0]["scores"][column]["standard_error"] if len(values) == 1 else standard_deviation(values)

    def values_of(self, name: str) -> list[float]:
        """The values of a measure, of each run that has it; `facts` count as measures too."""
        found = [run["measures"][name] for run in self.runs if name in run.get("measures", {})]
        return [self.facts[name]] if not found and name in self.facts else found


@dataclass(frozen=True)
class AblationResult:
    """The results of an ablation so far."""

    ablation: str
    title: str
    scale: str
    axis: str
    log: bool
    places: Mapping[str, float]  # label -> position on the axis; empty: in order
    columns: Sequence[str]  # scores
    measures: Sequence[str]
    rows: Sequence[AblationRow]
    paper: Sequence[tuple[str, str, float]]  # the paper's curves: series, label, top-1
    source: str
    chance: float
    baselines: Mapping[str, Mapping[str, Sequence[float]]]  # row -> column -> accuracies
    says: Sequence[str]  # notes on what the results can and cannot show

    @property
    def seeds(self) -> int:
        return max((len(row.runs) for row in self.rows), default=0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "AblationResult":
        rows = [AblationRow(**row) for row in tree["rows"]]
        return cls(**tree | {"rows": rows, "paper": [tuple(point) for point in tree["paper"]]})


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def standard_deviation(values: Sequence[float]) -> float:
    """Standard deviation over the runs, n - 1 in the denominator; 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
