"""The pictures that a finished run draws into its folder: curves.png and neighbours.png."""

import os
from collections.abc import Callable
from pathlib import Path

from moco.encoders import Encoder
from moco.report.neighbours_of_run import draw_own_neighbours
from moco.report.plots import curves
from moco.train.plan_run import Job
from moco.train.reporters import Reporter


def draw_pictures(job: Job, encoder: Encoder, reporter: Reporter) -> list[Path]:
    """Draw the pictures of a finished run, in a few seconds, and return their paths.

    A file that is already there is kept. A picture that cannot be drawn is reported, and the run does not fail.
    """
    run, recipe = job.run, job.recipe
    pictures: dict[Path, Callable[[Path], None]] = {
        run.path / "curves.png": lambda out: curves(run.metrics(), recipe, out),
        run.path / "neighbours.png": lambda out: draw_own_neighbours(
            out, job.images, encoder, recipe.data, device=job.place, workers=job.workers
        ),
    }
    drawn: list[Path] = []
    for path, draw in pictures.items():
        if os.path.lexists(path):
            reporter.say(f"caution: {path} was not drawn: a file of that name exists, and stays")
            continue
        try:
            draw(path)
            drawn.append(path)
        except Exception as error:  # any error: the encoder is saved, and a missing picture must not fail the run
            reporter.say(f"caution: {path} could not be drawn: {type(error).__name__}: {error}")
    return drawn
