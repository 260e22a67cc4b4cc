"""Start the ranks of a run on this machine. They share a file, and connect over the loopback interface only."""

import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import torch

from moco.distributed import STORE
from moco.stop_signals import STOP_SIGNALS

LOOPBACK = ("lo", "lo0")  # the interface's name on Linux, on macOS
FAILURE_TIMEOUT = 2.0  # [s] in which ranks notice that another has failed, before they get SIGTERM
STOP_TIMEOUT = 30.0  # [s] after SIGTERM, before they get SIGKILL


def launch(command: Callable[[], object], ranks: int) -> int:
    """Run `command` in `ranks` processes on this machine, until all have ended.

    Signals are forwarded to them; a second signal kills them. When one rank fails, the others are ended.

    Args:
        command: a function of a module, which the processes import.

    Returns:
        The exit code of the first rank that failed, or 0. Of a rank that a signal ended: minus the signal's number.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // ranks)))  # of each rank
    context = multiprocessing.get_context("spawn")  # this process has threads, so it must not fork
    with tempfile.TemporaryDirectory(prefix="moco-ranks-", ignore_cleanup_errors=True) as private:  # mode 0700
        variables = [environment(rank, ranks, Path(private, "store")) for rank in range(ranks)]
        processes = [context.Process(target=_work, args=(command, one)) for one in variables]
        with _forward_signals(processes):
            try:
                for process in processes:
                    process.start()
                return _first_failure(processes)
            finally:
                _end(processes)


def environment(rank: int, ranks: int, store: Path) -> dict[str, str]:
    """The environment variables of one of `ranks` on this machine, which share the file `store`.

    gloo and NCCL use the loopback interface, unless the user has set another one. By default they would listen on the
    address that the machine's name resolves to.
    """
    there = [name for _, name in socket.if_nameindex() if name in LOOPBACK]
    bound = {
        name: there[0] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if there and not os.environ.get(name)
    }
    return bound | {
        STORE: str(store), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }  # fmt: skip


def _work(command: Callable[[], object], variables: Mapping[str, str]) -> None:
    """Run `command` in a rank's process."""
    os.environ.update(variables)
    command()


def _first_failure(processes: Sequence[BaseProcess]) -> int:
    """Wait until a process fails, or all have ended. Returns the exit code of the one that failed, or 0."""
    running = {process.sentinel: process for process in processes}
    while running:
        ended = [running.pop(sentinel) for sentinel in wait(list(running)) if isinstance(sentinel, int)]
        for process in ended:
            process.join()
        codes = [process.exitcode for process in ended if process.exitcode]
        if codes:
            return min(codes)  # negative codes first: a rank killed by a signal makes the others fail
    return 0


def _end(processes: Sequence[BaseProcess]) -> None:
    """End the processes that still run: wait, then SIGTERM, then SIGKILL."""
    started = [process for process in processes if process.pid is not None]
    _join(started, FAILURE_TIMEOUT)
    for process in started:
        if process.is_alive():
            process.terminate()
    _join(started, STOP_TIMEOUT)
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Wait for all processes, together no longer than `seconds`."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))


@contextmanager
def _forward_signals(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """While open, signals are forwarded to the processes; a second one kills them. Ignored signals stay ignored."""
    seen: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        running = [process for process in processes if process.is_alive()]
        if not running:
            raise SystemExit(128 + number)
        for process in running:
            process.kill() if seen else os.kill(process.pid or 0, number)
        seen.append(number)

    numbers = [number for number in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in (*STOP_SIGNALS, *numbers)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
