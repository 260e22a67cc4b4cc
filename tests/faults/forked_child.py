"""Run a function in a forked child, which may die, hang or use too much memory, and measure it."""

import ctypes
import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """The result of a child."""

    answer: Any  # any JSON value
    megabytes: float  # peak memory above that at the start
    seconds: float  # of CPU


def in_child(work: Callable[[], Any], *, seconds: int = 60) -> Seen | None:
    """`work()` in a fork; None when it died, raised, or took longer than `seconds`. Linux only."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            ctypes.CDLL(None).malloc_trim(0)  # else the child could reuse memory that the parent has freed, unmeasured
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            before, start = _megabytes("VmRSS"), time.process_time()
            answer = work()
            seen = Seen(answer, _megabytes("VmHWM") - before, time.process_time() - start)
            with os.fdopen(writer, "w") as out:
                json.dump(seen, out)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(child, 0)
    return Seen(*json.loads(text)) if text else None


def _megabytes(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
