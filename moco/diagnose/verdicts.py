"""Verdicts from measurements and from the log of a run. No setting of the recipe is read here.

A verdict compares the run with itself: with its own start and its own best. It predicts no accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import median
from typing import Any

from moco.diagnose.measure import Measurement
from moco.diagnose.thresholds import VERDICT_THRESHOLDS
from moco.text import plural

COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Verdict:
    """One sentence, with the numbers behind it and the setting to change."""

    word: str
    sentence: str
    advice: str = ""  # the one thing to change; empty: nothing
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.word}: {self.sentence}{f' {self.advice}' if self.advice else ''}"


@dataclass(frozen=True)
class Evidence:
    """What verdicts are derived from."""

    measured: Sequence[tuple[int, Measurement]]  # step and measurement, in order
    total_steps: int
    waiting: float | None = None  # share of the time that training waited for images

    @property
    def step(self) -> int:
        return self.measured[-1][0]

    @property
    def now(self) -> Measurement:
        return self.measured[-1][1]

    @property
    def warm(self) -> bool:
        """Whether the warm-up is over."""
        return self.step >= VERDICT_THRESHOLDS.warm_up * self.total_steps

    @property
    def start(self) -> Measurement | None:
        """The measurement before the first step on the same probe set."""
        return next((one for step, one in self.measured if step == 0 and one.probe == self.now.probe), None)

    def select_comparable(self, since: float) -> list[tuple[int, Measurement]]:
        """Measurements on the same probe set since a part of the run; ranks and rates depend on its size."""
        first = since * self.total_steps
        return [(step, one) for step, one in self.measured if step >= first and one.probe == self.now.probe]

    def median(self, name: str) -> float | None:
        """The median of a signal in the part `middle` of the run; later the learning rate may be small.

        None without a measurement there.
        """
        low, high = (part * self.total_steps for part in VERDICT_THRESHOLDS.middle)
        values = [getattr(one, name) for step, one in self.measured if low <= step <= high]
        known = [value for value in values if value is not None]
        return median(known) if known else None


@dataclass(frozen=True)
class Diagnosis:
    """The verdicts on a run."""

    step: int
    classification: Verdict
    dense: Verdict
    others: tuple[Verdict, ...]  # further faults

    @property
    def collapsed(self) -> bool:
        return COLLAPSED in [one.word for one in (self.classification, *self.others)]

    @property
    def word(self) -> str:
        """The word in the live line."""
        return self.classification.word

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rows = [("classification", self.classification), ("dense tasks", self.dense)]
        lines = [f"{name}: {verdict}" for name, verdict in [*rows, *(("also", one) for one in self.others)]]
        return "\n".join(lines)


def judge_evidence(evidence: Evidence) -> Diagnosis:
    """The verdicts. The first fault of `FAULTS` is the verdict for classification, later ones are listed too."""
    found = [verdict for rule in FAULTS if (verdict := rule(evidence)) is not None]
    first, *others = found or [judge_progress(evidence)]
    collapse = next((one for one in found if one.word == COLLAPSED), None)
    return Diagnosis(evidence.step, first, collapse or judge_for_dense_tasks(evidence), tuple(others))


def find_collapse(evidence: Evidence) -> Verdict | None:
    now, hits = evidence.now, round(evidence.now.found * evidence.now.probe)
    by_chance = (
        hits <= VERDICT_THRESHOLDS.by_chance
        and now.probe >= VERDICT_THRESHOLDS.large
        and now.spread < VERDICT_THRESHOLDS.alike
    )
    if now.spread < VERDICT_THRESHOLDS.collapsed:
        what = f"the embeddings of all images are nearly the same (spread {now.spread:.3f}; 1 if they are uniform)."
    elif evidence.warm and by_chance:
        what = f"{hits} of {now.probe:,} queries find their own key; 1 does by chance (spread {now.spread:.2f})."
    else:
        return None
    return Verdict(COLLAPSED, what, "Start again with a tenth of the learning rate (optim.lr).")


def find_same_pictures(evidence: Evidence) -> Verdict | None:
    now = evidence.now
    if now.distinct > VERDICT_THRESHOLDS.copies * now.images:
        return None
    blank = f", {100 * now.blank:.0f} % are of a single colour" if now.blank > 0.01 else ""
    if now.keys:
        negatives = (
            f"of the {now.keys:,} keys that a query is compared with, {now.own_negatives:.2g} show its own picture and "
            "count as negatives"
        )
    else:  # before the first step, the queue has no keys of images
        negatives = "copies of a query's picture count as negatives"
    return Verdict(
        "copies",
        f"the {now.images:,} images show about {now.distinct:,.0f} different pictures{blank}; {negatives}.",
        "Remove copies: moco check DATA --duplicates lists them.",
    )


def find_false_negatives(evidence: Evidence) -> Verdict | None:
    now = evidence.now
    if now.own_negatives <= VERDICT_THRESHOLDS.own_negatives or find_same_pictures(evidence) is not None:
        return None
    size = 1 << max(0, int(now.distinct / 4).bit_length() - 1)
    return Verdict(
        "false negatives",
        f"of the {now.keys:,} keys that a query is compared with, {now.own_negatives:.2g} show its own picture and "
        f"count as negatives (about {now.distinct:,.0f} different pictures).",
        f"Make the dictionary smaller: --set method.size={size}.",
    )


def find_leak(evidence: Evidence) -> Verdict | None:
    now = evidence.now
    if now.own is None or now.apart is None or now.leak_error is None or not evidence.warm:
        return None
    lost = now.own - now.apart
    if lost <= VERDICT_THRESHOLDS.errors * now.leak_error or lost <= VERDICT_THRESHOLDS.leak * now.own:
        return None
    return Verdict(
        "BN leak",
        f"queries find {100 * now.own:.1f} % of their own keys, and only {100 * now.apart:.1f} % (standard error of "
        f"the difference {100 * now.leak_error:.1f}) when the keys share BN statistics with other images: the "
        "encoder recognizes the images of a BN group by their statistics.",
        "Shuffle the keys, in few large groups: --set method.bn=shuffle --set method.bn_groups=2.",
    )


def describe_weakness(evidence: Evidence) -> str | None:
    """What is wrong with the embeddings: few own keys are found, or few dimensions are used; None: neither."""
    now, start = evidence.now, evidence.start
    if not evidence.warm:
        return None
    if now.rank < VERDICT_THRESHOLDS.rank_of_dim * min(now.dim, now.probe):
        return f"the embeddings use {now.rank:.1f} of {now.dim} dimensions (effective rank)"
    best, at = max(
        [(one.rank, step) for step, one in evidence.select_comparable(VERDICT_THRESHOLDS.settled)], default=(0.0, 0)
    )
    if now.rank < VERDICT_THRESHOLDS.rank_of_best * best:
        return (
            f"the embeddings use {now.rank:.1f} of {now.dim} dimensions (effective rank), and {best:.1f} at step {at}"
        )
    if start is not None and now.found < VERDICT_THRESHOLDS.learned * start.found:
        return (
            f"queries find {100 * now.found:.1f} % of their own keys among {plural(now.probe, 'image')}, and "
            f"{100 * start.found:.1f} % before the first step"
        )
    return None


def find_fast_key_encoder(evidence: Evidence) -> Verdict | None:
    what, update, steady = describe_weakness(evidence), evidence.median("update"), evidence.median("steady")
    if what is None and steady is not None and steady < VERDICT_THRESHOLDS.steady and evidence.warm:
        what = (
            f"BN's running statistics lag behind (cosine {steady:.2f} of queries with those and with batch statistics)"
        )
    if what is None or update is None or update <= VERDICT_THRESHOLDS.update:
        return None
    return Verdict(
        "learning rate too high",
        f"{what}; a step changes the weights by {100 * update:.1f} % (about 0.1 % is usual).",
        "Use a tenth of the learning rate (optim.lr).",
    )


def find_stale_keys(evidence: Evidence) -> Verdict | None:
    what, now, follows = describe_weakness(evidence), evidence.now, evidence.median("follows")
    stored, fresh = evidence.median("stored"), evidence.median("fresh")
    if what is None or stored is None or fresh is None or follows is None or follows < VERDICT_THRESHOLDS.follows:
        return None
    if stored < VERDICT_THRESHOLDS.stale * max(fresh, 1 / now.probe):
        return None
    return Verdict(
        "stale keys",
        f"{what}; queries find {100 * stored:.1f} % of their own keys among keys of the queue, and {100 * fresh:.1f} % "
        f"among as many new keys, because the key encoder changes as fast as the query encoder (their embeddings of a "
        f"view have a cosine of {follows:.3f}).",
        "Let the key encoder follow more slowly: --set method.momentum=0.99.",
    )


def find_lagging_keys(evidence: Evidence) -> Verdict | None:
    what, follows = describe_weakness(evidence), evidence.now.follows
    if what is None or follows is None or follows >= VERDICT_THRESHOLDS.lags:
        return None
    return Verdict(
        "key encoder lags",
        f"{what}; the embeddings of a view by the two encoders have a cosine of {follows:.2f}.",
        "Let the key encoder follow faster: --set method.momentum=0.99.",
    )


def find_slow_learning(evidence: Evidence) -> Verdict | None:
    what, update = describe_weakness(evidence), evidence.median("update")
    if what is None or any(rule(evidence) for rule in (find_fast_key_encoder, find_stale_keys, find_lagging_keys)):
        return None
    how = "" if update is None else f"; a step changes the weights by {100 * update:.2g} %"
    return Verdict("learns little", f"{what}{how}.", "Train longer (--epochs), or change the learning rate (optim.lr).")


def find_slow_data(evidence: Evidence) -> Verdict | None:
    if evidence.waiting is None or evidence.waiting <= VERDICT_THRESHOLDS.waiting:
        return None
    return Verdict(
        "starved",
        f"training waits for images {100 * evidence.waiting:.0f} % of the time.",
        "Use more --workers, a faster disk, or smaller copies of the images.",
    )


def judge_progress(evidence: Evidence) -> Verdict:
    """The verdict on a run without a fault."""
    now, start = evidence.now, evidence.start
    before = "" if start is None else f", {100 * start.found:.1f} % before the first step"
    what = (
        f"queries find {100 * now.found:.1f} % of their own keys among {plural(now.probe, 'image')}{before}; the "
        f"embeddings use {now.rank:.1f} of {now.dim} dimensions"
    )
    if not evidence.warm:
        return Verdict("warming up", f"{what}.", fault=False)
    step, then = evidence.select_comparable(evidence.step / evidence.total_steps - VERDICT_THRESHOLDS.recent)[0]
    if step == evidence.step:
        return Verdict("healthy", f"{what}.", fault=False)
    error = sqrt(sum(one.found * (1 - one.found) / one.probe for one in (now, then)))
    if now.found - then.found > 2 * error:
        text = f"{what}, and {100 * then.found:.1f} % at step {step}."
        longer = "A longer run (--epochs) may be better." if evidence.step == evidence.total_steps else ""
        return Verdict("still learning", text, longer, fault=False)
    if 2 * error > VERDICT_THRESHOLDS.resolved * now.found:
        return Verdict("healthy", f"{what}.", fault=False)
    return Verdict("plateau", f"{what}; neither changes since step {step}.", fault=False)


def judge_for_dense_tasks(evidence: Evidence) -> Verdict:
    """The verdict for dense tasks: do the patches of the feature maps lose dimensions?"""
    now = evidence.now
    if now.patch_rank is None or now.patch_rank_error is None:
        return Verdict("not measured", "the network has no feature map of several patches.", fault=False)
    known = [
        (one.patch_rank or 0.0, one.patch_rank_error or 0.0, step) for step, one in evidence.select_comparable(0.0)
    ]
    best, best_error, step = max(known)
    what = f"the patches of the feature maps use {now.patch_rank:.1f} dimensions (effective rank)"
    error = sqrt(now.patch_rank_error**2 + best_error**2)
    if best - now.patch_rank > 2 * error and now.patch_rank < VERDICT_THRESHOLDS.patches_of_best * best:
        use = f"For dense tasks, try a checkpoint near step {step} (--keep-every keeps some)." if step else ""
        return Verdict("past its best", f"{what}, and {best:.1f} at step {step}.", use)
    return Verdict("keeps its patches", f"{what}, {best:.1f} at best.", fault=False)


FAULTS: tuple[Callable[[Evidence], Verdict | None], ...] = (
    find_same_pictures, find_collapse, find_false_negatives, find_leak, find_fast_key_encoder, find_stale_keys,
    find_lagging_keys, find_slow_data, find_slow_learning,
)  # fmt: skip
