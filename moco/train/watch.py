"""What happens between steps: log, evaluate, save, show, stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from moco.recipe import Recipe
from moco.schedule import Cosine
from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.train.console import Reporter, duration
from moco.train.run import RunFolder


class Stopped(Exception):
    """The run was asked to stop, has saved, and can be resumed."""


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite numbers."""


@dataclass
class StopFlag:
    """Set by the first SIGINT, SIGTERM or SIGUSR1."""

    name: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """While open, a first signal sets the flag, and a second one ends the process at once."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread can handle signals
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if flag.name is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        flag.name = signal.Signals(number).name

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Watch:
    """Called after every step; decides what is due."""

    run: RunFolder
    recipe: Recipe
    reporter: Reporter
    stop: StopFlag
    log_every: int  # steps
    save_every: int | None  # steps; None: a minute
    eval_every: int  # epochs
    score: Callable[[], float] | None  # kNN accuracy of the encoder as it is, in percent
    waited: Callable[[], float]  # seconds that training has waited for data
    since_log: list[dict[str, Tensor]] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)
    first_step: int = 0
    evaluating: float = 0.0  # seconds
    last_score: float | None = None

    def __call__(self, state: TrainState, metrics: dict[str, Tensor]) -> None:
        clock = state.clock
        self.since_log.append(metrics)
        last = clock.step == clock.total_steps
        if clock.step % self.log_every == 0 or last:
            self._log(clock)
        per_eval = self.eval_every * clock.steps_per_epoch
        if self.score is not None and (clock.step % per_eval == 0 or last):
            self.evaluate(clock)
        due = time.monotonic() - self.saved_at > 60 if self.save_every is None else clock.step % self.save_every == 0
        if due or last or self.stop.name:
            self.save(state)
        if self.stop.name and not last:
            raise Stopped(
                f"stopped by {self.stop.name} after step {clock.step} of {clock.total_steps}, and saved: the same "
                "command goes on from there"
            )

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, but never one of a state that is not finite."""
        self._check(state.clock.step)
        tensors = state.model.state_dict().items()
        broken = [name for name, x in tensors if x.is_floating_point() and not bool(torch.isfinite(x).all())]
        if broken:
            raise Diverged(f"not finite after step {state.clock.step}: {', '.join(broken[:3])}. {self._advice()}")
        checkpoint.save(self.run.checkpoints, state, recipe=self.recipe.to_json())
        self.saved_at = time.monotonic()

    def _check(self, step: int) -> None:
        losses = torch.stack([metrics["loss"] for metrics in self.since_log]) if self.since_log else torch.zeros(1)
        if not bool(torch.isfinite(losses).all()):
            bad = int((~torch.isfinite(losses)).nonzero()[0])
            raise Diverged(f"the loss of step {step - len(losses) + 1 + bad} is {losses[bad].item()}. {self._advice()}")

    def _advice(self) -> str:
        lr = self.recipe.optim.lr
        field, value = ("start", lr.start) if isinstance(lr, Cosine) else ("value", lr.value)
        lower = f"Start again with a lower learning rate, say --set optim.lr.{field}={value / 10:g} --overwrite"
        return lower + ("" if self.recipe.compute.precision == "fp32" else ", or with --precision fp32")

    def _log(self, clock: Clock) -> None:
        self._check(clock.step)
        loss, top1 = (self.since_log[-1][name].item() for name in ("loss", "pretext_top1"))
        done, elapsed = clock.step - self.first_step, time.monotonic() - self.began - self.evaluating
        rate = done / max(elapsed, 1e-9)  # steps a second
        images_per_second = rate * self.recipe.optim.batch_size
        before = Clock(clock.steps_per_epoch, clock.total_steps, clock.step - 1)  # the step was made with these
        self.run.log({
            "step": clock.step, "epoch": clock.epoch, "loss": loss, "pretext_top1": top1,
            "lr": self.recipe.optim.lr(before.epoch, before.epochs),
            "m": self.recipe.method.momentum(clock.epoch, clock.epochs),
            "images_per_second": round(images_per_second, 1), "seconds_waited": round(self.waited(), 2),
        })  # fmt: skip
        self.since_log.clear()
        knn = "" if self.last_score is None else f"  kNN {self.last_score:.1f} %"
        self.reporter.live(
            f"epoch {clock.epoch:.1f}/{clock.epochs:.0f}  step {clock.step}  "
            f"loss {loss:.2f} (chance {self.recipe.method.collapse_level:.2f})  "
            f"pretext {100 * top1:.0f} %{knn}  {images_per_second:,.0f} img/s  "
            f"data wait {100 * self.waited() / max(elapsed, 1e-9):.0f} %  "
            f"ETA {duration((clock.total_steps - clock.step) / max(rate, 1e-9))}"
        )

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.monotonic() - self.began

    def evaluate(self, clock: Clock) -> None:
        """Log the kNN accuracy of the encoder as it is."""
        assert self.score is not None
        start = time.monotonic()
        self.last_score = self.score()
        self.evaluating += time.monotonic() - start
        self.run.log({"step": clock.step, "epoch": clock.epoch, "knn": self.last_score})


def summary(run: RunFolder) -> dict[str, Any]:
    """The last logged values of a run."""
    last: dict[str, Any] = {}
    for record in run.metrics():
        last |= record
    return last
