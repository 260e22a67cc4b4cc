"""The content of a report: what report.json has and the page shows. docs/report.md describes it.

Texts are made here and not in the page, so that every number of the page is in report.json too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import moco
from moco.report.charts import text_of
from moco.report.comparison_table import comparison_table
from moco.report.picture_sections import PagePictures
from moco.report.run_charts import LoggedRun, run_charts
from moco.report.scores import score_table

FORMAT = 2  # of report.json
MOST_BAD = 20  # bad images that are listed
NO_VERDICT = "The run has no measurements for a verdict: moco diagnose RUN --data DATA measures its checkpoints."
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class RunState:
    """How far a run is, and why it stopped."""

    word: str
    text: str
    level: str  # good, bad or neutral


@dataclass(frozen=True, eq=False)
class RunContents:
    """What is known about one run, as read from its folder.

    Attributes:
        diagnosis: the content of diagnosis.json.
        scores: the content of scores.json.
        comparison: the content of compare.json.
        summary: what was run on what, in a line.
        run_id: the run's id.
        facts: title of a group -> rows of name and text.
        bad_images: name and reason of each.
        log: the last lines of train.log.
        next: what can be done now, and the command that does it.
        last: the last logged values.
        settings: every setting of the recipe, by its dotted name.
    """

    logged: LoggedRun
    path: str
    state: RunState
    diagnosis: Mapping[str, Any] | None = None
    scores: Any = None
    comparison: Any = None
    summary: str = ""
    run_id: str = ""
    facts: Mapping[str, Rows] = field(default_factory=dict)
    bad_images: Rows = ()
    log: Sequence[str] = ()
    next: Rows = ()
    last: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def report_of_run(run: RunContents, pictures: PagePictures | None = None, *, no_pictures: str = "") -> dict[str, Any]:
    """The content of a report on one run.

    Args:
        no_pictures: why there are no pictures, and what to do.
    """
    sections = [] if pictures is None else list(pictures.sections)
    one = _run(run) | {"pictures": {"text": no_pictures if pictures is None else pictures.text, "sections": sections}}
    return {
        **_head(run.logged.name, "Report of a pre-training run"), "runs": [one],
        "charts": run_charts([_with_chance(run)]),
    }  # fmt: skip


def _head(title: str, kind: str) -> dict[str, Any]:
    return {
        "format": FORMAT, "made_by": f"momentum-contrast {moco.__version__}", "title": title, "kind_text": kind,
        "json_name": "report.json",
    }  # fmt: skip


def _run(run: RunContents) -> dict[str, Any]:
    return {
        "name": run.logged.name, "path": run.path, "run_id": run.run_id, "summary": run.summary,
        "state": {"word": run.state.word, "text": run.state.text, "level": run.state.level},
        "verdicts": verdicts(run.diagnosis), "no_verdict": NO_VERDICT, "scores": score_table(run.scores),
        "comparison": comparison_table(run.comparison),
        "facts": [{"title": title, "rows": _named(rows, "name", "text")} for title, rows in run.facts.items() if rows],
        "bad_images": {"text": _bad_text(len(run.bad_images)),
                       "rows": _named(run.bad_images[:MOST_BAD], "name", "reason")},
        "log": list(run.log), "next": _named(run.next, "what", "command"), "last": dict(run.last),
    }  # fmt: skip


def _with_chance(run: RunContents) -> LoggedRun:
    table, logged = score_table(run.scores), run.logged
    chance = logged.chance if table is None else table["chance"]
    return LoggedRun(logged.name, logged.records, logged.recipe, logged.from_random, chance)


def verdicts(diagnosis: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The verdicts of a diagnosis: classification, dense tasks, and further faults."""
    if diagnosis is None:
        return []
    tasks = [("for classification", diagnosis["classification"]), ("for dense tasks", diagnosis["dense"])]
    tasks += [("also", one) for one in diagnosis["others"]]
    return [
        {"task": task} | {name: one[name] for name in ("word", "sentence", "advice", "fault")} for task, one in tasks
    ]


def _named(rows: Rows, first: str, second: str) -> list[dict[str, str]]:
    return [{first: str(a), second: str(b)} for a, b in rows]


def _bad_text(count: int) -> str:
    if count <= MOST_BAD:
        return f"{count:,} of the images."
    return f"The first {MOST_BAD} of {count:,}; bad_images.csv has all."


def report_of_runs(runs: Sequence[RunContents]) -> dict[str, Any]:
    """The content of a report that compares several runs."""
    title = f"{len(runs)} runs"
    names = [run.logged.name for run in runs]
    return {
        **_head(title, "Comparison of pre-training runs"), "runs": [_run(run) for run in runs],
        "table": {"columns": COLUMNS, "rows": [{"name": run.logged.name, "cells": _cells(run)} for run in runs]},
        "differences": {"columns": names, "rows": differing_settings(runs), "text": "The runs have the same settings."},
        "charts": run_charts([_with_chance(run) for run in runs]),
    }  # fmt: skip


COLUMNS = ["state", "epochs", "steps", "loss", "contrastive accuracy [%]", "kNN [%]", "verdict"]


def _cells(run: RunContents) -> list[str]:
    last, found = run.last, verdicts(run.diagnosis)
    accuracy = last.get("pretext_top1")
    values = [last.get("epoch"), last.get("step"), last.get("loss"), None if accuracy is None else 100 * accuracy]
    texts = ["" if value is None else text_of(value) for value in (*values, last.get("knn"))]
    return [run.state.word, *texts, found[0]["word"] if found else ""]


def differing_settings(runs: Sequence[RunContents]) -> list[dict[str, Any]]:
    """The settings that are not the same in all runs, with their value in each."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    rows = [(name, [str(run.settings.get(name, "")) for run in runs]) for name in names]
    return [{"setting": name, "cells": cells} for name, cells in rows if len(set(cells)) > 1]
