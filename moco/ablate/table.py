"""An ablation as a table in plain text or Markdown: measured scores and the paper's."""

from collections.abc import Sequence
from typing import NamedTuple

from moco.ablate.results import AblationResult, AblationRow, mean, standard_deviation


class Measure(NamedTuple):
    """A further column of the table."""

    head: str
    form: str


MEASURES = {
    "pretext": Measure("contrastive accuracy [%]", ".1f"),
    "own": Measure("... at the end [%]", ".1f"),
    "apart": Measure("... BN apart [%]", ".1f"),
    "memory": Measure("1/(1-m)", ",.0f"),
    "steps": Measure("steps", ",.0f"),
    "age": Measure("K/N", ",.0f"),
    "lag": Measure("lag of f_k", ".2f"),
    "consistency": Measure("key consistency", ".3f"),
    "stored": Measure("own key among stored [%]", ".1f"),
    "remade": Measure("... among re-made [%]", ".1f"),
    "agreement": Measure("views agree", ".3f"),
}
MEANINGS = {
    "pretext": "contrastive accuracy: share of queries closest to their own key of all keys, mean of the last epoch",
    "own": "at the end: the same, measured once with the trained network, keys made as in training",
    "apart": "BN apart: as at the end, but each key's BN statistics are of images other than its query's",
    "age": "K/N: age in steps of the oldest key",
    "lag": "lag of f_k: |theta_k - theta_q| / |theta_q - theta_q at first|",
    "consistency": "key consistency: cosine between the dictionary's keys and the network's present embeddings of the "
    "same views, in the middle of the run (at its end if no earlier checkpoint is there)",
    "stored": "among stored: share of new queries closer to their own key than to all in the queue, at that time",
    "remade": "among re-made: the same, with the queue's keys computed again by the network of that time",
    "agreement": "views agree: cosine between the network's embeddings of the two views of an image, at that time",
}


def text(result: AblationResult) -> str:
    """The table as aligned text, with notes below."""
    head, *body = _cells(result)
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
             for line in [head, *body]]  # fmt: skip
    return "\n".join([result.title, "", lines[0], "-" * len(lines[0]), *lines[1:], "", *notes_of(result)])


def markdown(result: AblationResult) -> str:
    """The same as a Markdown table, the notes in a paragraph."""
    head, *body = _cells(result)
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = ["| " + " | ".join(line) + " |" for line in [head, rule, *body]]
    return "\n".join([*lines, "", *notes_of(result)]) + "\n"


def notes_of(result: AblationResult) -> list[str]:
    """The notes below the table, one or two sentences in a line."""
    one = ", one seed; its bar in the picture is the standard error of the test images"
    runs = f", mean ± standard deviation over {result.seeds} seeds" if result.seeds > 1 else one
    measured = " (ImageNet, linear classifier, top-1)" if result.paper else ""
    lines = [f"Held-out accuracy [%]{runs}. Paper: {result.source}{measured}."]
    meant = [MEANINGS[name] for name in _measured_columns(result) if name in MEANINGS]
    return [*lines, *([f"Columns: {'; '.join(meant)}."] if meant else []), *result.says]


def format_mean(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and spread of some runs."""
    if not values:
        return ""
    return format(mean(values), form) + (f" ± {standard_deviation(values):{form}}" if len(values) > 1 else "")


def _measured_columns(result: AblationResult) -> list[str]:
    """The measures that at least one row has."""
    return [name for name in result.measures if any(row.values_of(name) for row in result.rows)]


def _cells(result: AblationResult) -> list[list[str]]:
    measures, paper = _measured_columns(result), any(row.paper is not None for row in result.rows)
    head = [result.axis or " ", *result.columns, *(MEASURES[name].head for name in measures), *["paper"] * paper]
    baselines = [["chance", *[f"{result.chance:.1f}"] * len(result.columns)]]
    baselines += [
        [row, *(format_mean(scores[column]) for column in result.columns)] for row, scores in result.baselines.items()
    ]
    rows = [_line(row, result.columns, measures)[: len(head)] for row in result.rows]
    return [head, *([*row, *[""] * (len(head) - len(row))] for row in baselines), *rows]


def _line(row: AblationRow, columns: Sequence[str], measures: Sequence[str]) -> list[str]:
    paper = row.paper if isinstance(row.paper, str) else "" if row.paper is None else f"{row.paper:.1f}"
    failed = f" ({row.failed} of {len(row.runs)} failed)" if 0 < row.failed < len(row.runs) else ""
    scores = [format_mean(row.scores(column)) or ("failed" if row.failed else "") for column in columns]
    measured = [format_mean(row.values_of(name), MEASURES[name].form) for name in measures]
    return [row.name, scores[0] + failed, *scores[1:], *measured, paper]
