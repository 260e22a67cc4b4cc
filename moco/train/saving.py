"""Save checkpoints, in a thread beside training. A save that fails is retried, and earlier checkpoints stay."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from moco.distributed import on_main, world_size
from moco.text import first_few, message_of, plural
from moco.train import checkpoint
from moco.train.checkpoint import CopiedState, TrainState
from moco.train.host_copy import HostCopy
from moco.train.in_background import Background
from moco.train.lock_folder import RunError, check_same_folder
from moco.train.nan_guard import Diverged
from moco.train.rank_sync import average_statistics
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder

FAILURES = 3  # failed saves in a row, before the run ends
FAILING = 60.0  # [s] between the first and the last of them, at least: with --save-every 1, three take a moment
RETRY = 60.0  # [s] after which a failed save is retried
PIECE = 16_384  # numbers that are checked at a time: torch does not use further threads for so few


@dataclass
class Saver:
    """Writes the checkpoints of a run, on rank 0.

    `save` copies the state and returns; a thread writes the copy. There is at most one save at a time: the next one
    waits for it. Open the saver as a context, so that no thread writes after the run.
    """

    run: RunFolder
    recipe: str  # as JSON
    reporter: Reporter
    every: int | None  # [steps] between checkpoints; None: one a minute
    keep: int = 3
    keep_every: int | None = None  # [steps]
    run_id: str | None = None
    beside: bool = True  # write beside training; False: training waits for the disk, and no memory is used for a copy
    failures: int = 0  # in a row
    failing: float = 0.0  # [s] time of the first of them
    recorded: bool = False  # whether saved.json says that there is a checkpoint
    at: float = field(default_factory=time.monotonic)  # [s] time of the last save, failed ones included
    step: int = 0  # of the last save
    copy: HostCopy = field(default_factory=HostCopy)
    background: Background[Path] = field(default_factory=lambda: Background("moco-checkpoint"))

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the save that is being written. Its failure is only reported: the run ends for another reason."""
        try:
            self.background.take()
        except (OSError, Diverged, RunError) as failure:
            self.reporter.say(f"caution: {self._describe(failure)}")

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint."""
        since = time.monotonic() - self.at
        if self.keep_every is not None and step % self.keep_every == 0:
            return True
        if self.failures and since > RETRY:
            return True
        return since > 60 if self.every is None else step % self.every == 0

    def save(
        self, state: TrainState, *, must: bool, wait: bool = False, unwritten: list[dict[str, Any]] | None = None
    ) -> Path | None:
        """Save a checkpoint, unless the state is not finite. Every rank calls this.

        Args:
            must: raise if it cannot be written, because there will be no later one. Waits.
            wait: wait until it is written.
            unwritten: records that could not be logged yet. They are logged first; if that fails, the save has failed.

        Returns:
            Its path on rank 0, after waiting; else None.

        Raises:
            Diverged: a tensor is not finite. Without waiting, `collect` or the next `save` raises it.
            OSError: the checkpoint cannot be written, and `must`, or too many saves in a row have failed.
        """
        self.collect(wait=True)
        assert isinstance(state.model, nn.Module)
        with average_statistics(state.model) as statistics:
            path = None
            if on_main():
                self.step, beside = state.clock.step, self.beside and not must and not wait
                begin = partial(self._begin, state, statistics, [] if unwritten is None else unwritten, beside=beside)
                path = self._settle(begin, must=must)
        self.at = time.monotonic()
        return path

    def collect(self, *, wait: bool = False) -> None:
        """Take the result of the save in the background, if there is one and it has ended or `wait`.

        Raises:
            Diverged, OSError: see `save`.
        """
        if self.background.ended or (wait and self.background.pending):
            self._settle(self.background.take, must=False)

    def _settle(self, work: Callable[[], Path | None], *, must: bool) -> Path | None:
        """The result of `work`. Its OSError is counted and reported, and raised only after too many or if `must`."""
        try:
            path = work()
        except OSError as error:
            self.failures, now = self.failures + 1, time.monotonic()
            self.failing = now if self.failures == 1 else self.failing
            failure = self._describe(error)
            if must or (self.failures >= FAILURES and now - self.failing >= FAILING):
                raise OSError(
                    f"{failure}. {plural(self.failures, 'save')} failed in a row. Earlier checkpoints are intact: "
                    "free disk space, or repair the disk, and run the same command again to resume from the newest one"
                ) from error
            self.reporter.say(
                f"caution: {failure}. The run continues, and tries again (failures in a row: {self.failures})"
            )
            return None
        if path is not None:
            self.failures = 0
        return path

    def _describe(self, error: OSError | Diverged | RunError) -> str:
        what = f"the checkpoint of step {self.step} could not be written to {self.run.checkpoints}: "
        return what + message_of(error)

    def _begin(
        self, state: TrainState, statistics: dict[str, Tensor], unwritten: list[dict[str, Any]], *, beside: bool
    ) -> Path | None:
        """Write the checkpoint and return its path; or copy the state, let a thread write it, and return None."""
        if unwritten:  # a run that resumes from this checkpoint must find its earlier records
            self.run.log(*unwritten)
            unwritten.clear()
        if not beside:
            return self._write(state, statistics)
        self.background.start(partial(self._write, *self.copy.take(state, statistics)))
        return None

    def _write(self, state: TrainState | CopiedState, statistics: dict[str, Tensor]) -> Path:
        """Check and write the state. Changes nothing that training reads."""
        content = state.state_dict()
        if broken := find_not_finite(content["model"]):
            raise Diverged(f"not finite after step {state.clock.step}: {first_few(broken)}")
        check_same_folder(self.run.path)
        self.run.sync()
        path = checkpoint.save(
            self.run.checkpoints, state, recipe=self.recipe, run_id=self.run_id, keep=self.keep,
            keep_every=self.keep_every, ranks=world_size(), statistics=statistics,
        )  # fmt: skip
        if not self.recorded:
            with suppress(OSError):  # the next checkpoint records it
                self.run.record_first_checkpoint(state.clock.step, run_id=self.run_id)
                self.recorded = True
        return path


def find_not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that are not finite. On the CPU it uses one thread, to spare those that train."""
    return [name for name, x in tensors.items() if x.is_floating_point() and not _is_finite(x)]


@torch.no_grad()
def _is_finite(x: Tensor) -> bool:
    if x.device.type != "cpu":
        return bool(torch.isfinite(x).all())
    in_memory_order = x.permute(sorted(range(x.ndim), key=lambda dim: -x.stride(dim))).reshape(-1)
    return all(
        math.isfinite(piece.sum()) or bool(torch.isfinite(piece).all())  # a sum of finite numbers may be infinite
        for piece in in_memory_order.split(PIECE)
    )
