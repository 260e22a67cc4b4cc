"""Save checkpoints. A save that fails is retried, and earlier checkpoints stay."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moco.distributed import on_main, world_size
from moco.text import first_few, message_of, plural
from moco.train import checkpoint
from moco.train.checkpoint import TrainState
from moco.train.nan_guard import Diverged
from moco.train.rank_sync import averaged_statistics
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder

FAILURES = 3  # failed saves in a row, before the run ends
FAILING = 60.0  # [s] between the first and the last of them, at least: with --save-every 1, three take a moment
RETRY = 60.0  # [s] after which a failed save is retried


@dataclass
class Saver:
    """Writes the checkpoints of a run, on rank 0."""

    run: RunFolder
    recipe: str  # as JSON
    reporter: Reporter
    every: int | None  # [steps] between checkpoints; None: one a minute
    keep: int = 3
    keep_every: int | None = None  # [steps]
    run_id: str | None = None
    failures: int = 0  # in a row
    failing: float = 0.0  # [s] time of the first of them
    recorded: bool = False  # whether saved.json says that there is a checkpoint
    at: float = field(default_factory=time.monotonic)  # [s] time of the last save, failed ones included

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint."""
        since = time.monotonic() - self.at
        if self.keep_every is not None and step % self.keep_every == 0:
            return True
        if self.failures and since > RETRY:
            return True
        return since > 60 if self.every is None else step % self.every == 0

    def save(self, state: TrainState, *, must: bool, unwritten: list[dict[str, Any]] | None = None) -> Path | None:
        """Write a checkpoint, unless the state is not finite, and return its path on rank 0.

        Args:
            must: raise if it cannot be written, because there will be no later one.
            unwritten: records that could not be logged yet. They are logged first; if that fails, the save has failed.

        Raises:
            Diverged: a tensor is not finite.
            OSError: the checkpoint cannot be written, and `must`, or too many saves in a row have failed.
        """
        assert isinstance(state.model, nn.Module)
        with averaged_statistics(state.model) as statistics:
            self._check(state.model.state_dict(), state.clock.step)
            path = self._write(state, statistics, must, unwritten or []) if on_main() else None
        self.at = time.monotonic()
        return path

    def _check(self, tensors: dict[str, Any], step: int) -> None:
        broken = [name for name, x in tensors.items() if x.is_floating_point() and not bool(torch.isfinite(x).all())]
        if broken:
            raise Diverged(f"not finite after step {step}: {first_few(broken)}")

    def _write(
        self, state: TrainState, statistics: dict[str, Tensor], must: bool, unwritten: list[dict[str, Any]]
    ) -> Path | None:
        try:
            if unwritten:  # a run that resumes from this checkpoint must find its earlier records
                self.run.log(*unwritten)
                unwritten.clear()
            self.run.sync()
            path = checkpoint.save(
                self.run.checkpoints, state, recipe=self.recipe, run_id=self.run_id, keep=self.keep,
                keep_every=self.keep_every, ranks=world_size(), statistics=statistics,
            )  # fmt: skip
        except OSError as error:
            self.failures, now = self.failures + 1, time.monotonic()
            self.failing = now if self.failures == 1 else self.failing
            failure = (
                f"the checkpoint of step {state.clock.step} could not be written to {self.run.checkpoints}: "
                f"{message_of(error)}"
            )
            if must or (self.failures >= FAILURES and now - self.failing >= FAILING):
                raise OSError(
                    f"{failure}. {plural(self.failures, 'save')} failed in a row. Earlier checkpoints are intact: "
                    "free disk space, or repair the disk, and run the same command again to resume from the newest one"
                ) from error
            self.reporter.say(
                f"caution: {failure}. The run continues, and tries again (failures in a row: {self.failures})"
            )
            return None
        self.failures = 0
        if not self.recorded:
            with suppress(OSError):  # the next checkpoint records it
                self.run.record_first_checkpoint(state.clock.step, run_id=self.run_id)
                self.recorded = True
        return path
