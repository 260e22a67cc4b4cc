"""Size and time of change of very many files: by several processes where a fork is safe, by threads on slow disks."""

import ctypes
import mmap
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from moco.data.sources.names import Names

PER_PROCESS = 100_000  # files at least: a process costs some milliseconds
PROCESSES = 16  # at most
TRIED = 64  # files whose time tells whether the disk is slow
SLOW = 1e-4  # [s] a file: a local disk takes some microseconds, one across a network some hundred
THREADS = 32  # on a slow disk, which answers many questions at a time
PR_SET_PDEATHSIG = 1  # prctl(2): which signal a process gets when its parent dies
MISSING = -1  # the size of what is no regular file


class FileStatus(NamedTuple):
    """Size [bytes] and time of change [ns] of n files; MISSING for those that are none."""

    sizes: Int64[np.ndarray, "n"]
    mtimes: Int64[np.ndarray, "n"]


def fork_is_safe() -> bool:
    """Whether this process may fork without exec: Linux, no other threads, and no torch, which starts some."""
    return sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1


def die_with(parent: int) -> None:
    """Called first in a forked process: it ends when its parent `parent` does, even in a read that hangs."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl
        os._exit(1)


def file_status(root: str, names: Names) -> FileStatus:
    """Size and time of change of the files `names`, paths below `root`. Links are followed."""
    count = len(names)
    share = max(PER_PROCESS, -(-count // min(PROCESSES, cores())))
    parts = [range(start, min(start + share, count)) for start in range(0, count, share)]
    if len(parts) < 2 or not fork_is_safe():
        found = FileStatus(np.full(count, MISSING, dtype=np.int64), np.zeros(count, dtype=np.int64))
        _look(root, names, range(count), found)
        return found
    shared = np.frombuffer(mmap.mmap(-1, 16 * count), dtype=np.int64)  # the processes write into the same memory
    found = FileStatus(shared[:count], shared[count:])
    found.sizes.fill(MISSING)
    _in_processes([lambda part=part: _look(root, names, part, found) for part in parts])
    return found


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(tasks: list[Callable[[], None]]) -> None:
    """Run the first of `tasks` here, the others in forked processes. What such a process fails to do is done here."""
    started = {_start(task): task for task in tasks[1:]}
    tasks[0]()
    for process, task in started.items():
        if process < 0 or os.waitpid(process, 0)[1]:
            task()


def _start(task: Callable[[], None]) -> int:
    """The number of a new process that runs `task`; a negative one, another each time, where none can be started."""
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError:
        return -id(task)
    if process:
        return process
    code = 1
    try:
        die_with(parent)
        task()
        code = 0
    finally:
        os._exit(code)  # whatever it raised: the parent does the task again, and raises


def _look(root: str, names: Names, rows: range, found: FileStatus) -> None:
    """Write the status of the files `rows` into `found`."""
    folder = os.open(root or ".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        began, first = time.perf_counter(), rows[:TRIED]
        _look_one_by_one(folder, names, first, found)
        rest = rows[TRIED:]
        if time.perf_counter() - began < SLOW * len(first) or len(rest) < THREADS:
            _look_one_by_one(folder, names, rest, found)
            return
        share = -(-len(rest) // THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            parts = [rest[start : start + share] for start in range(0, len(rest), share)]
            list(pool.map(lambda part: _look_one_by_one(folder, names, part, found), parts))
    finally:
        os.close(folder)


def _look_one_by_one(folder: int, names: Names, rows: range, found: FileStatus) -> None:
    sizes, mtimes, look, regular = found.sizes, found.mtimes, os.stat, stat.S_ISREG
    for row, name in zip(rows, names.between(rows.start, rows.stop), strict=True):
        try:
            status = look(name, dir_fd=folder)
        except (OSError, ValueError):
            continue
        if regular(status.st_mode):
            sizes[row], mtimes[row] = status.st_size, status.st_mtime_ns
