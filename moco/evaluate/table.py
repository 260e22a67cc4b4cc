"""The table of scores and baselines, and the sentence that says whether the encoder is better."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moco.text import first_few

NAMED = 10  # classes that a table names
WIDTH = 80  # [characters] to which sentences are wrapped
NARROW = 12  # [characters] at which column names are wrapped, so that all kinds fit in 80 columns
CLEAR = 2.0  # standard errors by which one accuracy must differ from another to be called better or worse


@dataclass(frozen=True)
class Score:
    """An accuracy [percent] on `images` test images; with `draws`, the mean over several choices of labelled images."""

    accuracy: float
    images: int
    draws: Sequence[float] = ()
    setting: str = ""  # a note on settings that were chosen or changed

    @property
    def spread(self) -> float:
        """Standard deviation over the draws [points]."""
        return statistics.stdev(self.draws) if len(self.draws) > 1 else 0.0

    @property
    def error(self) -> float:
        """Standard error [points]: binomial, for the choice of test images, plus that of the mean over draws."""
        share = self.accuracy / 100
        return math.hypot(
            100 * math.sqrt(share * (1 - share) / self.images), self.spread / math.sqrt(len(self.draws) or 1)
        )

    def __str__(self) -> str:
        return f"{self.accuracy:.1f}" + (f" ± {self.spread:.1f}" if len(self.draws) > 1 else "")

    def to_dict(self) -> dict[str, Any]:
        more = {"draws": list(self.draws), "spread": self.spread} if self.draws else {}
        more |= {"setting": self.setting} if self.setting else {}
        return {"accuracy": self.accuracy, "standard_error": self.error} | more


@dataclass(frozen=True)
class Table:
    """The scores of an encoder, its baselines and other encoders, all computed in the same way."""

    judged: str  # the row of the evaluated encoder
    baselines: Sequence[str]  # rows to compare it with
    rows: Mapping[str, Mapping[str, Score]]  # row -> column -> score
    chance: float  # [percent] the share of the largest class in the test images
    classes: int
    how: str  # which images
    notes: Sequence[str] = field(default=())
    class_names: Sequence[str] = field(default=())

    @property
    def columns(self) -> list[str]:
        return list(self.rows[self.judged])

    def __str__(self) -> str:
        """Plain aligned text."""
        wrapped = [[""], *(textwrap.wrap(column, NARROW, break_long_words=False) for column in self.columns)]
        height = max(map(len, wrapped))
        head = [list(line) for line in zip(*([""] * (height - len(one)) + one for one in wrapped), strict=True)]
        head[-1][0] = "held-out accuracy [%]"
        body = [[f"chance (largest of {self.classes} classes)", *[f"{self.chance:.1f}"] * len(self.columns)]]
        body += [[row, *(str(self.rows[row][column]) for column in self.columns)] for row in self.rows]
        widths = [max(len(line[i]) for line in [*head, *body]) for i in range(len(head[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in [*head, *body]
        ]
        rule = "-" * len(lines[0])
        remarks = [textwrap.fill(text, WIDTH, break_long_words=False) for text in (*self._remarks(), self.verdict())]
        return "\n".join([*lines[:height], rule, *lines[height:], "", *remarks])

    def _remarks(self) -> list[str]:
        lines = [f"classes: {first_few(self.class_names, NAMED)}"] if self.class_names else []
        lines += [self.how, *self.notes]
        for column in self.columns:
            chosen = {row: scores[column].setting for row, scores in self.rows.items() if scores[column].setting}
            same = len(chosen) == len(self.rows) > 1 and len(set(chosen.values())) == 1
            shown = list(chosen.values())[:1] if same else [f"{row} {setting}" for row, setting in chosen.items()]
            lines += [f"{column}: {', '.join(shown)}"] if shown else []
        if any(score.draws for scores in self.rows.values() for score in scores.values()):
            lines.append("±: standard deviation over the draws of labelled images, which are the same for every row")
        return lines

    def verdict(self) -> str:
        """Sentences on which scores of the encoder are better than those of its best baseline, and which are not."""
        ahead, level, behind = [], [], []
        for column in self.columns:
            baselines = {row: self.rows[row][column] for row in self.baselines}
            ours = self.rows[self.judged][column]
            baselines["chance"] = Score(self.chance, ours.images)
            baseline = max(baselines, key=lambda row: baselines[row].accuracy)
            theirs = baselines[baseline]
            gap, bar = ours.accuracy - theirs.accuracy, CLEAR * math.hypot(ours.error, theirs.error)
            side = ahead if gap > bar else behind if gap < -bar else level
            side.append(f"{column} ({ours.accuracy:.1f} against {theirs.accuracy:.1f} of {baseline})")
        parts = [
            (ahead, "is better than its best baseline"),
            (level, f"differs from its best baseline by less than {CLEAR:g} standard errors"),
            (behind, "is worse than its best baseline (use that one instead)"),
        ]
        return " ".join(f"{self.judged} {what}: {'; '.join(columns)}." for columns, what in parts if columns)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        rows = {row: {column: score.to_dict() for column, score in scores.items()} for row, scores in self.rows.items()}
        return {
            "judged": self.judged, "chance": self.chance, "classes": self.classes, "rows": rows,
            "verdict": self.verdict(), "how": self.how, "notes": list(self.notes),
            "class_names": list(self.class_names),
        }  # fmt: skip
