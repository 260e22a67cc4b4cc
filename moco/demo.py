"""The demo: pre-train on the pictures that come with the package, and evaluate the encoder beside baselines.

Only its data and recipe are special: `moco pretrain` and `moco eval` do the same with any folder.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco import recipes
from moco.data.sources.demo import demo_data
from moco.evaluate.evaluate import Subjects, judge, subjects
from moco.evaluate.features import load_pretrained
from moco.evaluate.knn import nearest
from moco.evaluate.protocols import Knn, LowShot
from moco.evaluate.table import Table
from moco.files import write_json
from moco.report.pictures import Neighbours, neighbour_sheet
from moco.report.plots import curves
from moco.train.pretrain import pretrain
from moco.train.report_run import report_at_end
from moco.train.reporters import Reporter
from moco.train.result_files import write_result
from moco.train.run_folder import RunFolder
from moco.train.run_pictures import images_of_run

QUERIES, NEAREST = 6, 8  # images in neighbours.png


class _Brief:
    """Passes everything on, except the closing box of the run: the demo has its own."""

    def __init__(self, reporter: Reporter) -> None:
        self.say, self.live, self.metrics, self._box = reporter.say, reporter.live, reporter.metrics, reporter.box

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self._box(title, [row for row in rows if row[0] not in ("pictures", "report", "next")])


def demo(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    workers: int | None = None,
    report: bool = True,
    reporter: Reporter,
) -> Table:
    """Pre-train, evaluate, draw, report. Writes scores.json, pictures and report.html into the run folder `out`.

    Args:
        quick: one epoch, to see that everything works; its scores mean nothing.
        report: write report.html and report.json.
    """
    data = demo_data()
    settings: dict[str, Any] = {"optim.epochs": 1} if quick else {}
    pretrain(
        data / "train", out, recipe=recipes.named("demo"), settings=settings, seed=seed, eval_data=data, eval_every=4,
        overwrite=overwrite, workers=workers, device="cpu", compare=False, report=False, reporter=_Brief(reporter),
    )  # fmt: skip
    everything = subjects(replace(load_pretrained(out, device="cpu"), name="MoCo"), data, workers=workers)
    table = judge([LowShot(), Knn(k=20)], everything)
    write_results(RunFolder(out), table, everything, reporter)
    if report:
        page = report_at_end(
            RunFolder(out), reporter, lambda: images_of_run(out, data / "train", device="cpu", workers=workers)
        )
        if page is not None:
            reporter.say(f"report: {page}")
    reporter.say("next: moco pretrain YOUR_IMAGES --out runs/mine")
    return table


def write_results(run: RunFolder, table: Table, among: Subjects, reporter: Reporter) -> None:
    """Write scores.json and the pictures. The run's own pictures are replaced; files of the user's stay."""
    writers: dict[str, Callable[[Path], None]] = {
        "scores.json": lambda out: write_json(out, table.to_dict()),
        "neighbours.png": lambda out: draw_neighbours(out, among),
        "curves.png": lambda out: curves(run.metrics(), run.recipe(), out, chance=table.chance),
    }
    written = {name: write_result(run, name, write) for name, write in writers.items()}
    pictures = [str(run.path / name) for name in ("neighbours.png", "curves.png") if written[name]]
    if pictures:
        reporter.say(f"pictures: {', '.join(pictures)}")
    for name in (name for name, done in written.items() if not done):
        reporter.say(f"caution: {run.path / name} was not written: a file of that name exists, and stays")


def draw_neighbours(out: Path, among: Subjects) -> None:
    """Draw the nearest training images of a few test images of different classes, by the features of every row."""
    test, train = among.split.test, among.split.train
    assert test.labels is not None
    assert train.labels is not None
    first_of_class = [int(np.flatnonzero(test.labels == label)[0]) for label in np.unique(test.labels)]
    chosen = np.array(first_of_class[:QUERIES])
    neighbours = []
    for name, row in among.rows.items():
        places = torch.searchsorted(row.test.ids, torch.from_numpy(chosen))
        ids = row.train.ids[nearest(row.train.x, row.test.x[places], k=NEAREST).indices].numpy()
        images = [[train.read(int(i)) for i in line] for line in ids]
        correct = (train.labels[ids] == test.labels[chosen, None]).tolist()
        neighbours.append(Neighbours(name, images, correct))
    captions = [test.classes[int(label)] for label in test.labels[chosen]]
    title = f"The {NEAREST} nearest training images of {len(chosen)} test images"
    neighbour_sheet(out, [test.read(int(i)) for i in chosen], neighbours=neighbours, labels=captions, title=title)
