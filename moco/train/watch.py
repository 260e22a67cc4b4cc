"""What happens between steps: log, evaluate, save, show, stop."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moco.data.quarantine import Quarantine
from moco.distributed import SIGNALS, agree, barrier, mean, on_main, world_size
from moco.recipe import Recipe
from moco.schedule import Cosine
from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.train.console import Reporter, duration
from moco.train.ranks import averaged, pool
from moco.train.run import RunFolder


class Stopped(Exception):
    """The run was asked to stop, has saved, and can be resumed."""


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite numbers."""


@dataclass
class StopFlag:
    """Set by the first SIGINT, SIGTERM or SIGUSR1."""

    number: int = 0  # of the signal; 0: none came
    parent: int = field(default_factory=os.getppid)

    def look(self) -> int:
        """The signal that came. Ranks whose launcher has gone, which is all that could start them again, stop too."""
        orphaned = world_size() > 1 and os.getppid() != self.parent
        return self.number or (signal.SIGHUP if orphaned else 0)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """While open, a first signal sets the flag, and a second one ends the process at once.

    Not on ranks: they may get the first one twice, from a scheduler and from their launcher; the launcher ends them.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread can handle signals
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if flag.number and world_size() == 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        flag.number = number

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Watch:
    """Called after every step, on every rank; decides what is due. Rank 0 writes and shows."""

    run: RunFolder
    recipe: Recipe
    reporter: Reporter
    stop: StopFlag
    log_every: int  # steps
    save_every: int | None  # steps; None: a minute
    eval_every: int  # epochs
    evaluates: bool
    score: Callable[[], float]  # kNN accuracy of the encoder as it is, in percent; called on rank 0 only
    quarantine: Quarantine
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
        if self.evaluates and (clock.step % per_eval == 0 or last):
            self.evaluate(state)
        due = time.monotonic() - self.saved_at > 60 if self.save_every is None else clock.step % self.save_every == 0
        stopped, due = divmod(agree(2 * self.stop.look() + (due and on_main())), 2)  # all after the same step
        if due or last or stopped:
            self.save(state)
        if stopped and not last:
            raise Stopped(
                f"stopped by {signal.Signals(stopped).name} after step {clock.step} of {clock.total_steps}, and "
                "saved: the same command goes on from there"
            )

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, but never one of a state that is not finite."""
        self._means(state.clock.step)
        pool(self.quarantine)
        assert isinstance(state.model, nn.Module)
        with averaged(state.model) as statistics:
            tensors = state.model.state_dict().items()
            broken = [name for name, x in tensors if x.is_floating_point() and not bool(torch.isfinite(x).all())]
            if broken:
                raise Diverged(f"not finite after step {state.clock.step}: {', '.join(broken[:3])}. {self._advice()}")
            if on_main():
                checkpoint.save(
                    self.run.checkpoints, state, recipe=self.recipe.to_json(), ranks=world_size(), statistics=statistics
                )
        barrier()  # whoever ends first makes the launcher end the others
        self.saved_at = time.monotonic()

    def _means(self, step: int) -> Float[Tensor, "n 2"]:
        """Loss and pretext accuracy of the steps since the last record, over all ranks. Raises Diverged."""
        rows = [torch.stack([metrics["loss"], metrics["pretext_top1"]]) for metrics in self.since_log]
        means = mean(torch.stack(rows)) if rows else torch.zeros(0, 2)
        finite = torch.isfinite(means[:, 0])
        if not bool(finite.all()):
            bad = int((~finite).nonzero()[0])
            raise Diverged(f"the loss of step {step - len(rows) + 1 + bad} is {means[bad, 0].item()}. {self._advice()}")
        return means

    def _advice(self) -> str:
        lr = self.recipe.optim.lr
        field, value = ("start", lr.start) if isinstance(lr, Cosine) else ("value", lr.value)
        lower = f"Start again with a lower learning rate, say --set optim.lr.{field}={value / 10:g} --overwrite"
        return lower + ("" if self.recipe.compute.precision == "fp32" else ", or with --precision fp32")

    def _log(self, clock: Clock) -> None:
        loss, top1 = self._means(clock.step)[-1].tolist()
        self.since_log.clear()
        done, elapsed = clock.step - self.first_step, time.monotonic() - self.began - self.evaluating
        rate = done / max(elapsed, 1e-9)  # steps a second
        images_per_second = rate * self.recipe.optim.batch_size
        before = Clock(clock.steps_per_epoch, clock.total_steps, clock.step - 1)  # the step was made with these
        self._record({
            "step": clock.step, "epoch": clock.epoch, "loss": loss, "pretext_top1": top1,
            "lr": self.recipe.optim.lr(before.epoch, before.epochs),
            "m": self.recipe.method.momentum(clock.epoch, clock.epochs),
            "images_per_second": round(images_per_second, 1), "seconds_waited": round(self.waited(), 2),
        })  # fmt: skip
        knn = "" if self.last_score is None else f"  kNN {self.last_score:.1f} %"
        self.reporter.live(
            f"epoch {clock.epoch:.1f}/{clock.epochs:.0f}  step {clock.step}  "
            f"loss {loss:.2f} (chance {self.recipe.collapse_level:.2f})  "
            f"pretext {100 * top1:.0f} %{knn}  {images_per_second:,.0f} img/s  "
            f"data wait {100 * self.waited() / max(elapsed, 1e-9):.0f} %  "
            f"ETA {duration((clock.total_steps - clock.step) / max(rate, 1e-9))}"
        )

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.monotonic() - self.began

    def evaluate(self, state: TrainState) -> None:
        """Log the kNN accuracy of the encoder as it is."""
        start = time.monotonic()
        assert isinstance(state.model, nn.Module)
        with averaged(state.model):
            if on_main():
                self.last_score = self.score()
            barrier()
        self.evaluating += time.monotonic() - start
        self._record({"step": state.clock.step, "epoch": state.clock.epoch, "knn": self.last_score})

    def _record(self, values: dict[str, Any]) -> None:
        if on_main():
            self.run.log(values)


def summary(run: RunFolder) -> dict[str, Any]:
    """The last logged values of a run."""
    last: dict[str, Any] = {}
    for record in run.metrics():
        last |= record
    return last
