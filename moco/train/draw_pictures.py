"""The pictures that a finished run draws into its folder: curves.png and neighbours.png."""

from collections.abc import Callable
from pathlib import Path

from moco.report.neighbours_of_run import draw_own_neighbours
from moco.report.plots import curves
from moco.train.plan_run import PretrainJob
from moco.train.reporters import Reporter
from moco.train.result_files import write_result
from moco.train.run_pictures import RunImages


def draw_pictures(job: PretrainJob, among: RunImages, reporter: Reporter) -> list[Path]:
    """Draw the pictures of a finished run, in a few seconds, and return their paths.

    A file that the run has not drawn is kept. A picture that cannot be drawn is reported, and the run does not fail.
    """
    run, recipe = job.run, job.recipe
    pictures: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda out: curves(run.metrics(), recipe, out),
        "neighbours.png": lambda out: draw_own_neighbours(out, among.sample),
    }
    drawn: list[Path] = []
    for name, draw in pictures.items():
        path = run.path / name
        try:
            if write_result(run, name, draw):
                drawn.append(path)
            else:
                reporter.say(f"caution: {path} was not drawn: a file of that name exists, and stays")
        except Exception as error:  # any error: the encoder is saved, and a missing picture must not fail the run
            reporter.say(f"caution: {path} could not be drawn: {type(error).__name__}: {error}")
    return drawn
