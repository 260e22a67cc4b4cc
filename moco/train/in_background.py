"""One piece of work at a time in a thread, beside training."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Background(Generic[T]):
    """Runs one function at a time in a thread of its own.

    Python waits for the thread before it ends; SIGKILL ends it with the process.
    """

    name: str
    _thread: threading.Thread | None = field(default=None, init=False)
    _value: T | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    @property
    def pending(self) -> bool:
        """Whether there is work whose result has not been taken."""
        return self._thread is not None

    @property
    def ended(self) -> bool:
        """Whether the result of pending work can be taken without waiting."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, work: Callable[[], T]) -> None:
        """Start `work` in a thread. The result of the work before it must have been taken."""
        assert not self.pending

        def run() -> None:
            try:
                self._value = work()
            except Exception as error:  # raised again by `take`
                self._error = error

        self._thread = threading.Thread(target=run, name=self.name)
        self._thread.start()

    def take(self) -> T | None:
        """Wait for the work, and return its result or raise its error; None if nothing is pending."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        value, error = self._value, self._error
        self._value = self._error = None
        if error is not None:
            raise error
        return value
