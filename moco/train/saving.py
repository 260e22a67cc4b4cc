"""Saving checkpoints: a save that fails is retried, and earlier checkpoints stay."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moco.distributed import on_main, world_size
from moco.text import first_few, message_of
from moco.train import checkpoint
from moco.train.checkpoint import TrainState
from moco.train.nan_guard import Diverged
from moco.train.rank_sync import averaged
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder

FAILURES = 3  # so many in a row end a run,
FAILING = 60.0  # [s] if they go on for so long: with --save-every 1, three of them take a moment
RETRY = 60.0  # [s] after which a failed checkpoint is retried


@dataclass
class Saver:
    """Writes the checkpoints of a run, on rank 0."""

    run: RunFolder
    recipe: str  # as JSON
    reporter: Reporter
    every: int | None  # steps; None: a minute
    keep: int = 3
    keep_every: int | None = None  # steps
    failures: int = 0  # in a row,
    failing: float = 0.0  # and when the first of them was
    noted: bool = False  # whether saved.json says that there is a checkpoint
    at: float = field(default_factory=time.monotonic)  # of the last one, or of the last attempt

    def due(self, step: int) -> bool:
        since = time.monotonic() - self.at
        if self.keep_every is not None and step % self.keep_every == 0:
            return True
        if self.failures and since > RETRY:
            return True
        return since > 60 if self.every is None else step % self.every == 0

    def save(self, state: TrainState, *, must: bool, unwritten: list[dict[str, Any]] | None = None) -> Path | None:
        """Write a checkpoint, unless the state is not finite, and return its path on rank 0.

        Args:
            must: raise if it cannot be written: it is the last one.
            unwritten: records that could not be logged yet. They are logged first; a failure counts as one of saving.

        Raises:
            Diverged: a tensor is not finite. OSError: it cannot be written, once too often.
        """
        assert isinstance(state.model, nn.Module)
        with averaged(state.model) as statistics:
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
            if unwritten:  # a run resumed from here must find its earlier records
                self.run.log(*unwritten)
                unwritten.clear()
            self.run.sync()
            path = checkpoint.save(
                self.run.checkpoints, state, recipe=self.recipe, keep=self.keep, keep_every=self.keep_every,
                ranks=world_size(), statistics=statistics,
            )  # fmt: skip
        except OSError as error:
            self.failures, now = self.failures + 1, time.monotonic()
            self.failing = now if self.failures == 1 else self.failing
            what = (
                f"the checkpoint of step {state.clock.step} could not be written to {self.run.checkpoints}: "
                f"{message_of(error)}"
            )
            if must or (self.failures >= FAILURES and now - self.failing >= FAILING):
                raise OSError(
                    f"{what}. {self.failures} failed in a row. Earlier checkpoints are intact: free disk space, or "
                    "repair the disk, and run the same command again to resume from the newest"
                ) from error
            self.reporter.say(f"caution: {what}. The run continues, and will try again (failures: {self.failures})")
            return None
        self.failures = 0
        if not self.noted:
            with suppress(OSError):  # the next checkpoint records it
                self.run.note_saved(state.clock.step)
                self.noted = True
        return path
