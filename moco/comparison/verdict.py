"""From differences with intervals to a verdict: yes, no, or cannot tell.

The rule, fixed before any measurement:

1. kNN decides. The other measures are shown with their intervals; they can only take a verdict back.
2. With B baselines, the interval of each difference of kNN covers 1 - 0.05 / B (Bonferroni), so that the chance of any
   wrong call among all baselines is at most 5 %.
3. Against a baseline: "yes" if the whole interval is above zero, "no" if it is below zero, else "cannot tell". It is
   also "cannot tell" with fewer than 50 test images, with fewer than 10 images on which the two differ (the interval
   is too short then), and if the interval of another measure is wholly on the other side of zero.
4. Overall: "no" if one baseline is better; "yes" if the encoder is better than all of them; else "cannot tell".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moco.text import escape

Answer = Literal["yes", "no", "cannot tell"]
LEVEL = 0.95  # of all intervals together
FEWEST_IMAGES = 50
FEWEST_DIFFERENT = 10


@dataclass(frozen=True)
class Difference:
    """Encoder minus baseline, in points."""

    points: float
    low: float
    high: float
    different: int  # test images on which exactly one of the two is correct

    @property
    def side(self) -> int:
        """1: the interval is above zero, -1: below, 0: neither."""
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class ComparisonVerdict:
    """An answer and its sentence."""

    answer: Answer
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {"answer": self.answer, "sentence": self.sentence}


@dataclass(frozen=True)
class Words:
    """How a sentence says that the encoder, or the baseline, is better. {} is the name of the baseline."""

    better: str
    worse: str


WITH_LABELS = Words("Yes: better than {}", "No: {} is better")
WITHOUT_LABELS = Words("More consistent than {}", "{} is more consistent")


def level_for(baselines: int) -> float:
    """The level of each interval, so that all of them together cover LEVEL."""
    return 1 - (1 - LEVEL) / max(1, baselines)


def judge_baseline(
    name: str,
    differences: Mapping[str, Difference],
    *,
    deciding: str,
    images: int,
    level: float,
    words: Words = WITH_LABELS,
) -> ComparisonVerdict:
    """The verdict against one baseline.

    Args:
        differences: by measure; `deciding` is one of them.
        images: number of images that are compared.
    """
    one, name = differences[deciding], escape(name)
    numbers = f"{deciding} ({100 * level:.3g} % interval {one.low:+.1f} to {one.high:+.1f})"
    if images < FEWEST_IMAGES:
        return ComparisonVerdict(
            "cannot tell",
            f"Cannot tell against {name}: {images} images to test on, and {FEWEST_IMAGES} are needed: "
            "give more images.",
        )
    if one.different < FEWEST_DIFFERENT:
        return ComparisonVerdict(
            "cannot tell",
            f"Cannot tell against {name}: the two differ on {one.different} of {images:,} images by {deciding}, "
            f"and {FEWEST_DIFFERENT} are needed.",
        )
    if not one.side:
        return ComparisonVerdict("cannot tell", f"Cannot tell against {name}: {one.points:+.1f} points of {numbers}.")
    against = [measure for measure, other in differences.items() if other.side == -one.side]
    if against:
        return ComparisonVerdict(
            "cannot tell",
            f"Cannot tell against {name}: {one.points:+.1f} points of {numbers}, but {' and '.join(against)} says the "
            "opposite.",
        )
    if one.side > 0:
        return ComparisonVerdict("yes", f"{words.better.format(name)} by {one.points:.1f} points of {numbers}.")
    numbers = f"{deciding} ({100 * level:.3g} % interval {-one.high:.1f} to {-one.low:.1f})"
    return ComparisonVerdict("no", f"{words.worse.format(name)} by {-one.points:.1f} points of {numbers}.")


def judge_all(verdicts: Mapping[str, ComparisonVerdict]) -> ComparisonVerdict:
    """The verdict over all baselines."""
    by: dict[str, Sequence[str]] = {
        answer: [name for name, one in verdicts.items() if one.answer == answer] for answer in ("no", "cannot tell")
    }
    if by["no"]:
        return ComparisonVerdict("no", " ".join(verdicts[name].sentence for name in by["no"]))
    if by["cannot tell"]:
        return ComparisonVerdict("cannot tell", " ".join(verdicts[name].sentence for name in by["cannot tell"]))
    return ComparisonVerdict("yes", " ".join(one.sentence for one in verdicts.values()))
