"""Estimate time and memory of fine-tuning from a few steps before it starts."""

import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moco.distributed import world_size
from moco.encoders import Encoder
from moco.text import duration, plural
from moco.train.build import threads
from moco.train.ddp import wrap
from moco.train.loop import seed_step
from moco.transfer.fine_tune import new_model
from moco.transfer.plan_run import TransferJob

STEPS = 2  # that are measured, after a first one, which takes longer
SHORT_RUN = 100  # [iterations] runs with no more are not estimated, as that would take about as long as they do


@dataclass(frozen=True)
class Estimate:
    """Time and memory of one iteration of the recipe on this machine."""

    seconds: float
    memory: int | None  # [bytes] maximum of the training process; None: not known on this device

    def describe(self, iterations: int, runs: int) -> str:
        """A sentence on the time of all runs together, and on memory."""
        memory = "" if self.memory is None else f", and {self.memory / 2**30:.1f} GiB of memory"
        return (
            f"training takes about {duration(iterations * self.seconds)} for {plural(runs, 'run')} with "
            f"{iterations:,} iterations in all ({self.seconds:.2g} s each){memory}; estimated from {STEPS} steps with "
            "few images; scoring is not included"
        )


def iterations_left(jobs: Sequence[TransferJob]) -> list[int]:
    """The number of iterations that each run still has to do."""
    left: list[int] = []
    for job in jobs:
        total = job.clock.total_steps
        if job.options.overwrite:
            left.append(total)
        elif job.run.finished:
            left.append(0)
        else:
            left.append(total - max((one.get("step", 0) for one in job.run.metrics()), default=0))
    return left


def measure_tuning(encoder: Encoder, job: TransferJob) -> Estimate:
    """Measure a few steps with learning rate 0 on a new model. Writes nothing to the run folder.

    Args:
        encoder: becomes part of the model.
    """
    recipe = job.recipe
    each = min(recipe.optim.batch_size // world_size(), job.task.measured_images)
    small = recipe.but(None, {"optim.batch_size": each * world_size(), "optim.at": ()})
    factor = recipe.optim.batch_size / (each * world_size())
    batches = job.task.batches(job.data.train, small, steps=range(1 + STEPS), workers=job.workers)
    with threads(recipe.threads):
        state = new_model(encoder, job)
        model, optimizer, place = wrap(state, skips=True), job.task.optimizer(state, recipe), job.place
        model.train()
        before, times = _memory(place), []
        for step, batch in enumerate(batches):
            seed_step(recipe.seed, step)
            start = time.perf_counter()
            losses = model(*batch.to(place))
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            times.append(time.perf_counter() - start)
            optimizer.zero_grad(set_to_none=True)
    after = _memory(place)
    memory = None if before is None or after is None else round(before + max(0, after - before) * factor)
    return Estimate(statistics.median(times[1:]) * factor, memory)


def _memory(place: torch.device) -> int | None:
    """The maximum memory of the process so far [bytes], on the device that trains."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    if place.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None
