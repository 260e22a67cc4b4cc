"""What happens after each step: log, evaluate, save, report, stop."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.distributed import agree_all, barrier, on_main
from moco.recipe_base import RecipeBase
from moco.text import duration, message_of
from moco.train.checkpoint import Clock, TrainState
from moco.train.metrics_log import StepLog
from moco.train.nan_guard import Diverged, Gate, Refusal
from moco.train.nan_report import bundle, next_steps
from moco.train.pace import Pace
from moco.train.rank_sync import averaged, pool
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver
from moco.train.signals import Interrupted, StopFlag, Stopped
from moco.train.slurm import requeue
from moco.train.watchdog import Watchdog


@dataclass
class Watch:
    """Called after every step on every rank: logs, evaluates and saves when due. Rank 0 writes and reports."""

    run: RunFolder
    recipe: RecipeBase
    log: StepLog
    reporter: Reporter
    stop: StopFlag
    log_every: int  # steps
    saver: Saver
    gate: Gate
    dog: Watchdog
    pace: Pace
    allowed_skips: int  # steps that are not finite
    names: Sequence[str]  # of the images
    eval_every: int  # epochs
    evaluates: bool
    score: Callable[[], float]  # kNN accuracy of the encoder now [percent]; called on rank 0 only
    quarantine: Quarantine
    waited: Callable[[], float]  # [s] that training has waited for data
    began: float = field(default_factory=time.monotonic)
    first_step: int = 0
    evaluating: float = 0.0  # [s] spent on it
    last_score: float | None = None
    skipped: int | None = None  # the last skipped step; it is logged already
    unwritten: list[dict[str, Any]] = field(default_factory=list)  # records that could not be logged yet

    def __call__(self, state: TrainState, metrics: dict[str, Tensor]) -> None:
        clock = state.clock
        if estimate := self.pace.estimate(clock.step):
            self.reporter.say(estimate)
        self.dog.section("step")
        if clock.step != self.skipped:
            state.window.add(clock.step, metrics)
        last = clock.step == clock.total_steps
        evaluates = self.evaluates and (clock.step % (self.eval_every * clock.steps_per_epoch) == 0 or last)
        if clock.step % self.log_every == 0 or evaluates or last:
            self._check_scale(state)
            self._log(state, self.score_now(state) if evaluates else {})
        stopped, due = agree_all(self.stop.look(), int(on_main() and self.saver.due(clock.step)))
        if due or last or stopped:  # all ranks after the same step
            self.save(state, must=last or bool(stopped))
        if stopped and not last:
            requeued = requeue(stopped)
            kind = Interrupted if stopped == signal.SIGINT else Stopped
            raise kind(
                f"stopped by {signal.Signals(stopped).name} after step {clock.step} of {clock.total_steps}, and "
                f"saved. Run the same command again to resume. {requeued}".rstrip()
            )

    def save(self, state: TrainState, *, must: bool = False) -> Path | None:
        """Write a checkpoint, and return its path on rank 0. See `Saver.save`."""
        self.gate.look()
        self._check_scale(state)
        self.dog.section("checkpoint")
        pool(self.quarantine)
        state.window.gather(until=state.clock.step)
        path = self.saver.save(state, must=must, unwritten=self.unwritten)
        barrier()  # no rank may end before: the launcher would end rank 0 too
        self.dog.section("step")
        return path

    def refuse(self, state: TrainState, refusal: Refusal) -> None:
        """Handle a discarded step: skip it if allowed, otherwise save the state before it and raise Diverged."""
        if state.clock.skipped < self.allowed_skips:
            clock, step = state.clock, refusal.step + 1  # on a GPU the clock may be one step further
            clock.skipped, self.skipped = clock.skipped + 1, step
            state.window.discard(step)
            self._record({"step": step, "epoch": step / clock.steps_per_epoch, "skipped": clock.skipped})
            self.reporter.say(
                f"caution: {refusal}; skipped: {state.clock.skipped} of at most {self.allowed_skips} steps"
            )
            return
        state.clock.step = refusal.step
        try:
            saved, advice = self.save(state), self.log.advice()
        except Diverged as error:
            saved, advice = None, f"The state before it was not saved: {error}. {self.log.advice()}"
        discarded = Clock(state.clock.steps_per_epoch, state.clock.total_steps, refusal.step + 1)
        place = bundle(
            self.run.path / "nan", refusal, recipe=self.recipe, values=self.log.values(discarded),
            names=self.names, checkpoint=saved,
        )  # fmt: skip
        raise Diverged(f"{refusal}. {next_steps(place, advice)}")

    def _check_scale(self, state: TrainState) -> None:
        """Raises Diverged when the GradScaler keeps halving its scale: it then skips every step, silently.

        The scale starts at 65,536. Below 1, a gradient overflows without being enlarged, or is NaN at any scale.
        """
        assert isinstance(state.scaler, torch.amp.GradScaler)
        if state.scaler.is_enabled() and (scale := state.scaler.get_scale()) < 1:
            raise Diverged(
                f"after step {state.clock.step} the scale of the fp16 gradients is down to {scale:g}: the gradients "
                f"were not finite in many steps, and these steps changed nothing. {self.log.advice()}"
            )

    def _log(self, state: TrainState, scores: dict[str, float | None]) -> None:
        """Log means over the steps since the last record, what this step was made with, and scores."""
        self.gate.look()
        clock = state.clock
        state.window.gather(until=clock.step)
        means = state.window.pop_means()
        if not means and not scores:  # all were skipped
            return
        done, elapsed = clock.step - self.first_step, time.monotonic() - self.began - self.evaluating
        each = self.pace.each(clock.step) or elapsed / max(done, 1)  # seconds; the first step alone sets up too
        rate = 1 / max(each, 1e-9)
        images_per_second = rate * self.log.images_per_step
        self._record({
            "step": clock.step, "epoch": clock.epoch, **means,
            **self.log.values(clock),
            "images_per_second": round(images_per_second, 1), "seconds_waited": round(self.waited(), 2),
            **scores,
        })  # fmt: skip
        self.reporter.live(  # most important first: a narrow terminal cuts the end
            f"ETA {duration((clock.total_steps - clock.step) / max(rate, 1e-9))}",
            self.log.progress(clock),
            *self.log.live(means, self.last_score),
            f"{images_per_second:,.0f} img/s",
            f"data wait {100 * self.waited() / max(elapsed, 1e-9):.0f} %",
            f"step {clock.step}",
        )

    @property
    def seconds(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.began

    def evaluate(self, state: TrainState) -> None:
        """Log the kNN accuracy before the first step."""
        self._record({"step": state.clock.step, "epoch": state.clock.epoch, **self.score_now(state)})

    def score_now(self, state: TrainState) -> dict[str, float | None]:
        """The kNN accuracy of the encoder now; on the other ranks None."""
        start = time.monotonic()
        self.gate.look()
        self.dog.section("scores")
        assert isinstance(state.model, nn.Module)
        with averaged(state.model):
            if on_main():
                self.last_score = self.score()
            barrier()
        self.dog.section("step")
        self.evaluating += time.monotonic() - start
        self.pace.pause(time.monotonic() - start)
        return {"knn": self.last_score}

    def _record(self, values: dict[str, Any]) -> None:
        """Append a record to the log. One that cannot be written is kept, and written with the next."""
        if not on_main():
            return
        self.reporter.metrics(values)
        self.unwritten.append(values)
        try:
            self.run.log(*self.unwritten)
            self.unwritten.clear()
        except OSError as error:
            if len(self.unwritten) == 1:
                self.reporter.say(
                    f"caution: {self.run.metrics_file} cannot be written: {message_of(error)}. Going on, and trying"
                )


def summary(run: RunFolder) -> dict[str, Any]:
    """The last logged values of a run."""
    last: dict[str, Any] = {}
    for record in run.metrics():
        last |= record
    return last
