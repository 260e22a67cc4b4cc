"""CPU time of this process and of all that it has started."""

import os
import resource
import time
from pathlib import Path


def cpu() -> float:
    """[CPU s] of this process, of children that have ended, and, on Linux, of those at work."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(map(_of_process, children(os.getpid())))
    return time.process_time() + ended.ru_utime + ended.ru_stime + living


def sees_children() -> bool:
    """Whether `cpu` counts those at work: not without Linux's /proc."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def children(process: int) -> list[int]:
    """Those of the process, and theirs."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found + [one for child in found for one in children(child)]


def _of_process(process: int) -> float:
    """[CPU s] of all its threads; Linux names that clock by ~p in the upper bits, and 2 for CPU time."""
    try:
        return time.clock_gettime((~process << 3) | 2)
    except OSError:  # it has ended, and its parent has not yet asked for it
        return 0.0
