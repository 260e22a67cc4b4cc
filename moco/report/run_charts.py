"""The charts of a report: which curves of a run are shown, and which levels they are compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moco.recipe import Recipe
from moco.report.charts import ChartSpec, Curve, Level, chart, text_of

Records = Sequence[Mapping[str, Any]]
MOST_LEVELS = 4  # in a chart of several runs


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """A run as far as charts need it.

    Attributes:
        records: those of metrics.jsonl.
        from_random: it started from random parameters, so its values at step 0 are those of a random encoder.
        chance: accuracy of chance on the labelled images [percent], if known.
    """

    name: str
    records: Records
    recipe: Recipe
    from_random: bool = True
    chance: float | None = None

    @property
    def start(self) -> str:
        """What the values at step 0 are those of."""
        return "random encoder" if self.from_random else "before the first step"


@dataclass(frozen=True)
class SignalChart:
    """A chart of one signal of the diagnosis."""

    key: str
    title: str
    note: str
    percent: bool = False
    levels: Mapping[str, float] | None = None  # besides the value at step 0; by name
    against_start: bool = True


SIGNALS = (
    SignalChart("found", "Own keys found", "Share of images of the probe set whose two views find each other among all "
                "others. It should rise.", percent=True),
    SignalChart("rank", "Effective rank of the embeddings", "How many dimensions the embeddings use. A strong fall "
                "is a collapse of dimensions."),
    SignalChart("spread", "Spread of the embeddings", "All images have nearly the same embedding at the lower level.",
                levels={"collapsed": 0.1, "uniform": 1.0}, against_start=False),
    SignalChart("clusters", "Agreement of clusters", "Clusters of one view beside clusters of the other view (AMI)."),
    SignalChart("patch_rank", "Effective rank of the patches", "For dense tasks: how many dimensions the patches of "
                "the feature maps use."),
    SignalChart("update", "Change of the weights in a step", "Relative to the weights; above the level is fast.",
                percent=True, levels={"fast": 0.01}, against_start=False),
)  # fmt: skip


def run_charts(runs: Sequence[LoggedRun]) -> list[dict[str, Any]]:
    """The charts of one run, or of several above each other; only those that have values."""
    made = [_loss(runs), _accuracy(runs), _knn(runs), _learning_rate(runs), *(_signal(runs, one) for one in SIGNALS)]
    made.append(_speed(runs))
    return [_with_summary(one, several=len(runs) > 1) for one in made if one is not None]


def _with_summary(one: dict[str, Any], *, several: bool) -> dict[str, Any]:
    """The chart with its last values in words."""
    unit = f" {one['unit']}" if one["unit"] else ""
    lasts = [(f"{series['run']}: " if several else "") + text_of(series["y"][-1]) + unit for series in one["series"]]
    return {**one, "x_name": "epoch", "summary": "at the end " + "; ".join(lasts)}


def _curves(
    runs: Sequence[LoggedRun], value: Callable[[Mapping[str, Any]], Any], *, first_step: int = 0
) -> list[Curve]:
    """The curve of a value in each run. Records without it, or with something else than a number, are left out."""
    curves = []
    for run in runs:
        records = [record for record in run.records if record.get("step", 0) >= first_step]
        points = [(_number(record.get("epoch")), _number(value(record))) for record in records]
        curves.append(Curve(run.name, [(x, y) for x, y in points if x is not None and y is not None]))
    return curves


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at_start(run: LoggedRun, value: Callable[[Mapping[str, Any]], Any]) -> Level | None:
    """The value before the first step; None if there is none."""
    found = [_number(value(record)) for record in run.records if record.get("step") == 0]
    return next((Level(run.start, one) for one in found if one is not None), None)


def _levels(runs: Sequence[LoggedRun], level: Callable[[LoggedRun], Level | None]) -> list[Level]:
    """The level of each run: once if it is the same for all, otherwise with the names of the first runs."""
    found = [(run, one) for run in runs if (one := level(run)) is not None]
    if len({(one.name, round(one.value, 9)) for _, one in found}) <= 1:
        return [one for _, one in found[:1]]
    return [Level(f"{one.name}, {run.name}", one.value) for run, one in found[:MOST_LEVELS]]


def _loss(runs: Sequence[LoggedRun]) -> dict[str, Any] | None:
    filled = max(_epochs_to_fill(run) for run in runs)
    queue = " Lower at first: random keys are still in the queue." if filled else ""
    kinds = {"infonce": "InfoNCE loss", "nce": "NCE loss"}
    names = {kinds[run.recipe.method.loss] for run in runs}
    spec = ChartSpec(
        "loss", names.pop() if len(names) == 1 else "Loss", "nats", f"At chance after a collapse.{queue}",
        seen_from=filled,
        levels=_levels(runs, lambda run: Level(f"chance among {run.recipe.candidates:,} keys",
                                               run.recipe.collapse_level)),
    )  # fmt: skip
    return chart(spec, _curves(runs, lambda record: record.get("loss"), first_step=1))


def _epochs_to_fill(run: LoggedRun) -> float:
    """Epochs until the queue has no random keys."""
    method, recipe = run.recipe.method, run.recipe
    steps = (method.size or 0) / recipe.keys_per_step if method.dictionary == "queue" else 0
    last = next((record for record in reversed(run.records) if record.get("step") and record.get("epoch")), None)
    return 0.0 if last is None else steps * last["epoch"] / last["step"]


def _accuracy(runs: Sequence[LoggedRun]) -> dict[str, Any] | None:
    spec = ChartSpec(
        "contrastive_accuracy", "Contrastive accuracy", percent=True, seen_from=max(map(_epochs_to_fill, runs)),
        note="How often a query is more similar to its own key than to all others.",
        levels=_levels(runs, lambda run: Level("chance", 1 / run.recipe.candidates)), from_zero=True,
    )  # fmt: skip
    return chart(spec, _curves(runs, lambda record: record.get("pretext_top1"), first_step=1))


def _knn(runs: Sequence[LoggedRun]) -> dict[str, Any] | None:
    def chance(run: LoggedRun) -> Level | None:
        return None if run.chance is None else Level("chance", run.chance)

    spec = ChartSpec(
        "knn", "kNN accuracy", "%", "On labelled images, which training does not use.",
        levels=[*_levels(runs, lambda run: _at_start(run, lambda record: record.get("knn"))), *_levels(runs, chance)],
    )  # fmt: skip
    return chart(spec, _curves(runs, lambda record: record.get("knn")))


def _learning_rate(runs: Sequence[LoggedRun]) -> dict[str, Any] | None:
    spec = ChartSpec("lr", "Learning rate", from_zero=True)
    return chart(spec, _curves(runs, lambda record: record.get("lr"), first_step=1))


def _speed(runs: Sequence[LoggedRun]) -> dict[str, Any] | None:
    spec = ChartSpec("images_per_second", "Speed", "images/s", from_zero=True)
    return chart(spec, _curves(runs, lambda record: record.get("images_per_second"), first_step=1))


def _signal(runs: Sequence[LoggedRun], one: SignalChart) -> dict[str, Any] | None:
    def value(record: Mapping[str, Any]) -> Any:
        probe = record.get("probe")
        return probe.get(one.key) if isinstance(probe, dict) else None

    fixed = [Level(name, level) for name, level in (one.levels or {}).items()]
    spec = ChartSpec(
        one.key, one.title, note=one.note, percent=one.percent, from_zero=True,
        levels=[*fixed, *(_levels(runs, lambda run: _at_start(run, value)) if one.against_start else [])],
    )  # fmt: skip
    return chart(spec, _curves(runs, value))
