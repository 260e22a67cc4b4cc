"""The result of a comparison, as text and as plain values."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moco.comparison.verdict import ComparisonVerdict, Difference
from moco.text import TEXT_WIDTH, escape

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
    verdicts: Mapping[str, ComparisonVerdict]
    verdict: ComparisonVerdict
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
        """A table for each baseline, what was compared, and the verdict; lines of at most WIDTH characters."""
        blocks = [self._table(name) for name in self.differences]
        blocks.append("\n".join(_wrapped(one) for one in (self.split, *self.notes)))
        return "\n\n".join([*blocks, _wrapped(self.sentence)])

    def _table(self, baseline: str) -> str:
        """Scores of the encoder and of `baseline`, their difference, and the verdict."""
        ours, theirs = self.scores[self.judged], self.scores[baseline]
        seeds = max(map(len, theirs.values()))
        theirs_are = f"baseline ({seeds} seeds)" if seeds > 1 else "baseline"
        rows = [("", "encoder", theirs_are, f"difference ({100 * self.level:.3g} % interval)")]
        for key, one in self.differences[baseline].items():
            interval = f"{one.points:+.1f} ({one.low:+.1f} to {one.high:+.1f})"
            rows.append((key, _cell(ours[key]), _cell(theirs[key]), interval))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        title = _wrapped(f"{escape(self.judged)} against {escape(baseline)}: {self.verdicts[baseline].answer}")
        return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])

    @property
    def sentence(self) -> str:
        """The question and the verdict."""
        return f"{'Is it worth it?' if self.labels else HINT} {self.verdict.sentence}"


def _cell(values: Sequence[float]) -> str:
    """The mean, and the range over seeds."""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" + (f" [{min(values):.1f}-{max(values):.1f}]" if len(values) > 1 else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)
