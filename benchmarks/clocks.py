"""CPU time of this process and its child processes."""

import os
import resource
import time
from pathlib import Path


def cpu() -> float:
    """[CPU s] of this process and of its ended children; on Linux also of its running children."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(map(_of_process, children(os.getpid())))
    return time.process_time() + ended.ru_utime + ended.ru_stime + living


def sees_children() -> bool:
    """Whether `cpu` counts running children, which needs Linux's /proc."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def children(process: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found + [one for child in found for one in children(child)]


def _of_process(process: int) -> float:
    """[CPU s] of all threads of a process. Linux's id of that clock: ~process in the upper bits, 2 for CPU time."""
    try:
        return time.clock_gettime((~process << 3) | 2)
    except OSError:  # it has ended and waits for its parent
        return 0.0
