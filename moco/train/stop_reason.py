"""Note in train.log why a run has stopped, so that its report can say it."""

from types import TracebackType

from moco.text import message_of
from moco.train.after_step import Collapsed, Diverged
from moco.train.reporters import Logged, Reporter
from moco.train.stop_on_signals import Stopped

STOPPED_BY = "stopped: "  # begins the line
EXPLAINED = (Stopped, Diverged, Collapsed)  # their messages say what happened


class StopReason:
    """A context: an error that leaves it becomes the last line of train.log, once the run has one."""

    def __init__(self) -> None:
        self._log: Logged | None = None

    def note_in(self, reporter: Reporter) -> Reporter:
        """Note the reason where this reporter writes, and return it."""
        self._log = reporter if isinstance(reporter, Logged) else None
        return reporter

    def __enter__(self) -> "StopReason":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is None or error is None:
            return
        text = message_of(error)
        explained = isinstance(error, EXPLAINED) and text
        self._log.write(STOPPED_BY + (text if explained else f"{type(error).__name__}: {text}".removesuffix(": ")))
