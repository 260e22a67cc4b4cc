"""How often a run is measured, and on how many images, so that it costs less than 2 % of the run."""

import math
from dataclasses import dataclass

COST = 0.02  # of the run, at most
MOST, FEWEST, STEP = 1024, 64, 64  # images of the probe set
MEASUREMENTS = 2  # in a run, before the probe set is made larger; besides the one before the first step
EVERY = 0.01  # of the run, at most one measurement
# In units of one image in training, which takes four forward passes (queries, and twice that backward, and keys):
MAKING = 2.0  # an image is read twice
MEASURING = 1.6  # six forward passes and a half


@dataclass(frozen=True)
class ProbePlan:
    """The number of images in the probe set, and the steps between two measurements."""

    images: int
    every: int


def plan_probe(images: int, *, batch: int, steps: int, log_every: int) -> ProbePlan | None:
    """The plan for a run of `steps` mini-batches on so many images; None if even one measurement would cost too much.

    A measurement comes with a record of the log, so `every` is a multiple of `log_every`.
    """
    budget = COST * batch * steps  # images

    def affordable(count: int) -> float:
        return (budget / count - MAKING) / MEASURING - 1  # besides the one before the first step

    count = min(MOST, images)
    while count > FEWEST and affordable(count) < MEASUREMENTS:
        count -= STEP
    count = max(min(FEWEST, images), count // STEP * STEP)
    if affordable(count) < 1:
        return None
    every = max(steps / affordable(count), EVERY * steps, 1)
    return ProbePlan(count, math.ceil(every / log_every) * log_every)
