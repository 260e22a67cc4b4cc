"""What happens after each step: log, evaluate, save, report, stop."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from moco.train.live_diagnosis import Collapsed, LiveDiagnosis, collapse_message
from moco.train.metrics_log import StepLog
from moco.train.nan_guard import DiscardedStep, Diverged, NanGuard
from moco.train.nan_report import next_steps, write_nan_report
from moco.train.pace import Pace
from moco.train.rank_sync import average_statistics, pool_bad_images
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver
from moco.train.slurm import requeue
from moco.train.stop_on_signals import Interrupted, StopFlag, Stopped
from moco.train.watchdog import Watchdog


@dataclass
class AfterStep:
    """Called after every step on every rank: logs, evaluates, saves and stops when due. Rank 0 writes and reports."""

    run: RunFolder
    recipe: RecipeBase
    log: StepLog
    reporter: Reporter
    stop: StopFlag
    log_every: int  # steps
    saver: Saver
    guard: NanGuard
    dog: Watchdog
    pace: Pace
    allowed_skips: int  # of steps that are not finite
    names: Sequence[str]  # of the images
    eval_every: int  # [epochs] between two scores
    evaluates: bool  # whether there are labelled images
    score: Callable[[], float]  # returns the kNN accuracy of the encoder [percent]; called on rank 0 only
    quarantine: Quarantine
    waited: Callable[[], float]  # returns the seconds that training has waited for data
    diagnosis: LiveDiagnosis | None = None
    began: float = field(default_factory=time.monotonic)
    first_step: int = 0  # this process trains from here
    evaluating: float = 0.0  # [s] spent on scores and diagnosis
    last_score: float | None = None
    skipped: int | None = None  # the last skipped step, which is logged already
    unwritten: list[dict[str, Any]] = field(default_factory=list)  # records that could not be written yet

    def __call__(self, state: TrainState, metrics: dict[str, Tensor]) -> None:
        clock = state.clock
        if estimate := self.pace.estimate(clock.step):
            self.reporter.say(estimate)
        self.dog.section("step")
        self.saver.collect()
        if clock.step != self.skipped:
            state.window.add(clock.step, metrics)
        last = clock.step == clock.total_steps
        evaluates = self.evaluates and (clock.step % (self.eval_every * clock.steps_per_epoch) == 0 or last)
        diagnoses = self.diagnosis is not None and self.diagnosis.is_due(clock)
        if clock.step % self.log_every == 0 or evaluates or diagnoses or last:
            self._check_scale(state)
            scores = self.score_now(state) if evaluates else {}
            self._log(state, scores | (self.diagnose_now(state) if diagnoses else {}))
        collapsed = diagnoses and not last and self._stops_at_collapse()
        due = int(on_main() and self.saver.is_due(clock.step))
        stopped, due, collapsed = agree_all(self.stop.received_signal(), due, int(collapsed))
        if due or last or stopped or collapsed:  # all ranks after the same step
            self.save(state, must=last or bool(stopped or collapsed))
        if collapsed and not stopped:
            raise Collapsed(collapse_message(clock.step, self.run))
        if stopped and not last:
            requeued = requeue(stopped)
            kind = Interrupted if stopped == signal.SIGINT else Stopped
            raise kind(
                f"stopped by {signal.Signals(stopped).name} after step {clock.step} of {clock.total_steps}, and "
                f"saved. Run the same command again to resume. {requeued}".rstrip()
            )

    def save(self, state: TrainState, *, must: bool = False, wait: bool = False) -> Path | None:
        """Save a checkpoint. With `must` or `wait`, return its path on rank 0. See `Saver.save`."""
        self.guard.read_flags()
        self._check_scale(state)
        self.dog.section("checkpoint")
        pool_bad_images(self.quarantine)
        state.window.gather(until=state.clock.step)
        path = self.saver.save(state, must=must, wait=wait, unwritten=self.unwritten)
        barrier()  # if another rank ended earlier, the launcher would end rank 0 while it saves
        self.dog.section("step")
        return path

    def handle_discarded(self, state: TrainState, discarded: DiscardedStep) -> None:
        """Handle a discarded step: skip it if allowed, otherwise save the state before it and raise Diverged."""
        if state.clock.skipped < self.allowed_skips:
            clock, step = state.clock, discarded.step + 1  # on a GPU the clock may be one step further
            clock.skipped, self.skipped = clock.skipped + 1, step
            state.window.discard(step)
            self._record({"step": step, "epoch": step / clock.steps_per_epoch, "skipped": clock.skipped})
            self.reporter.say(
                f"caution: {discarded}; skipped: {state.clock.skipped} of at most {self.allowed_skips} steps"
            )
            return
        state.clock.step = discarded.step
        try:
            saved, advice = self.save(state, wait=True), self.log.advice()
        except Diverged as error:
            saved, advice = None, f"The state before it was not saved: {error}. {self.log.advice()}"
        end_of_step = Clock(state.clock.steps_per_epoch, state.clock.total_steps, discarded.step + 1)
        try:
            place = write_nan_report(
                self.run.path / "nan", discarded, recipe=self.recipe, values=self.log.values(end_of_step),
                names=self.names, checkpoint=saved,
            )  # fmt: skip
        except OSError as error:
            place, advice = None, f"The report of the step could not be written: {message_of(error)}. {advice}"
        raise Diverged(f"{discarded}. {next_steps(place, advice)}")

    def _check_scale(self, state: TrainState) -> None:
        """Raise Diverged if the GradScaler's scale is below 1. It then skips every step without a message.

        The scale starts at 65,536, and is halved whenever a gradient is not finite. Below 1, even gradients that are
        not scaled up are not finite.
        """
        assert isinstance(state.scaler, torch.amp.GradScaler)
        if state.scaler.is_enabled() and (scale := state.scaler.get_scale()) < 1:
            raise Diverged(
                f"after step {state.clock.step} the scale of the fp16 gradients is down to {scale:g}: the gradients "
                f"were not finite in many steps, and these steps changed nothing. {self.log.advice()}"
            )

    def _log(self, state: TrainState, scores: dict[str, Any]) -> None:
        """Log the metrics' means since the last record, this step's learning rate and momentum, scores and signals."""
        self.guard.read_flags()
        clock = state.clock
        state.window.gather(until=clock.step)
        means = state.window.pop_means()
        if not means and not scores:  # all steps were skipped
            return
        done, elapsed = clock.step - self.first_step, time.monotonic() - self.began - self.evaluating
        each = self.pace.each(clock.step)  # [s]; None: only steps that took longer than later ones will
        rate = 1 / max(each or elapsed / max(done, 1), 1e-9)
        left = "not known yet" if each is None else duration((clock.total_steps - clock.step) / rate)
        images_per_second = rate * self.log.images_per_step
        self._record({
            "step": clock.step, "epoch": clock.epoch, **means,
            **self.log.values(clock),
            "images_per_second": round(images_per_second, 1), "seconds_waited": round(self.waited(), 2),
            "seconds": round(elapsed, 2),
            **scores,
        })  # fmt: skip
        self.reporter.live(  # most important first: a narrow terminal cuts the end
            f"ETA {left}",
            self.log.progress(clock),
            *self.log.live(means, self.last_score),
            *([self.diagnosis.word] if self.diagnosis is not None and self.diagnosis.word else []),
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

    def diagnose(self, state: TrainState) -> None:
        """Log the signals before the first step."""
        self._record({"step": state.clock.step, "epoch": state.clock.epoch, **self.diagnose_now(state)})

    def score_now(self, state: TrainState) -> dict[str, float | None]:
        """Compute the kNN accuracy of the encoder. Every rank calls it; rank 0 returns the score, the others None."""
        with self._beside_training(state):
            if on_main():
                self.last_score = self.score()
        return {"knn": self.last_score}

    def diagnose_now(self, state: TrainState) -> dict[str, Any]:
        """Measure the signals. Every rank calls it; rank 0 returns them, the others nothing."""
        assert self.diagnosis is not None
        with self._beside_training(state):
            return self.diagnosis.measure(state, self.unwritten) if on_main() else {}

    def _stops_at_collapse(self) -> bool:
        assert self.diagnosis is not None
        return on_main() and self.diagnosis.stops(self.unwritten)

    @contextmanager
    def _beside_training(self, state: TrainState) -> Iterator[None]:
        """A context for what rank 0 does while the others wait. Its time does not count as training."""
        start = time.monotonic()
        self.guard.read_flags()
        self.dog.section("scores")
        assert isinstance(state.model, nn.Module)
        with average_statistics(state.model):
            yield
            barrier()
        self.dog.section("step")
        self.evaluating += time.monotonic() - start
        self.pace.pause(time.monotonic() - start)

    def _record(self, values: dict[str, Any]) -> None:
        """Append a record to the log. A record that cannot be written now is written with the next one."""
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
                    f"caution: {self.run.metrics_file} cannot be written: {message_of(error)}. The run continues, and "
                    "tries again with the next record"
                )


def last_values(run: RunFolder) -> dict[str, Any]:
    """The last logged values of a run."""
    last: dict[str, Any] = {}
    for record in run.metrics():
        last |= record
    return last
