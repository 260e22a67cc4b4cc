"""The result of a comparison, as text and as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moco.comparison.verdict import Difference, Verdict
from moco.text import shown

# Without labels there is no answer to that question.
HINT = "Without labels, which is a hint and says nothing about accuracy:"


@dataclass(frozen=True)
class Comparison:
    """Scores, differences with intervals, and verdicts."""

    judged: str
    images: int  # test images, or without labels those whose views are compared
    split: str
    level: float  # of each interval
    scores: Mapping[str, Mapping[str, Sequence[float]]]  # [percent], by encoder and measure, one for each seed
    differences: Mapping[str, Mapping[str, Difference]]  # encoder minus baseline, by baseline and measure
    verdicts: Mapping[str, Verdict]
    verdict: Verdict
    notes: Sequence[str]
    labels: bool = True  # whether labels were used

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "judged": self.judged, "images": self.images, "split": self.split, "level": self.level,
            "scores": {name: {key: list(values) for key, values in row.items()} for name, row in self.scores.items()},
            "differences": {
                name: {key: dataclasses.asdict(one) for key, one in row.items()}
                for name, row in self.differences.items()
            },
            "verdicts": {name: one.to_dict() for name, one in self.verdicts.items()},
            "verdict": self.verdict.to_dict(), "notes": list(self.notes), "used_labels": self.labels,
        }  # fmt: skip

    def __str__(self) -> str:
        measures = list(next(iter(self.scores.values())))
        width = max(len(shown(name)) for name in self.scores) + 2
        lines = [" " * width + "".join(f"{key:>18}" for key in measures)]
        for name, row in self.scores.items():
            lines.append(f"{shown(name):<{width}}" + "".join(f"{_cell(row[key]):>18}" for key in measures))
        lines += ["", f"encoder minus baseline [points], intervals of {100 * self.level:.3g} %:"]
        for name, row in self.differences.items():
            for key, one in row.items():
                lines.append(f"  {shown(name)}, {key}: {one.points:+.1f} ({one.low:+.1f} to {one.high:+.1f})")
        test = f"{self.images:,} test images; " if self.labels else ""
        lines += ["", f"{test}{self.split}", *self.notes, ""]
        lines += [f"{shown(name)}: {one.answer}" for name, one in self.verdicts.items()]
        return "\n".join([*lines, "", self.sentence])

    @property
    def sentence(self) -> str:
        """The question and the verdict."""
        return f"{'Is it worth it?' if self.labels else HINT} {self.verdict.sentence}"


def _cell(values: Sequence[float]) -> str:
    """The mean, and the range over seeds."""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" + (f" [{min(values):.1f}-{max(values):.1f}]" if len(values) > 1 else "")
