"""Ranks for tests: processes forked from this one, which has imported everything already."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it when they are made: once here, and not in every rank
import torch.distributed as dist


class Ranks:
    """`work(rank)` in `world` child processes, each with the environment that torchrun would give it.

    The store at which they meet is a process of its own, as with torchrun. It cannot be here: it has threads, and of
    what a thread is at, a child inherits the locks.
    """

    def __init__(self, work: Callable[[int], object], world: int):
        self.store, self.port = store()
        self.running: dict[int, int] = {}  # rank by process
        self.codes: list[int | None] = [None] * world
        sys.stdout.flush()
        sys.stderr.flush()
        for rank in range(world):
            process = os.fork()
            if process == 0:
                self._child(work, rank, world)
            self.running[process] = rank

    def _child(self, work: Callable[[int], object], rank: int, world: int) -> None:
        code = 1
        try:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            }  # fmt: skip
            torch.set_num_threads(1)
            work(rank)
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def kill(self, number: int = signal.SIGKILL, only: int | None = None) -> None:
        for process, rank in self.running.items():
            if only in (None, rank):
                os.kill(process, number)

    def wait(self, seconds: float = 120) -> list[int]:
        """The exit code of each rank; as subprocess has it, minus the number of a signal that ended it."""
        end = time.monotonic() + seconds
        while self.running:
            self.poll()
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"ranks {sorted(self.running.values())} did not end in {seconds} s")
            time.sleep(0.002)
        os.kill(self.store, signal.SIGKILL)
        os.waitpid(self.store, 0)
        return [code for code in self.codes if code is not None]

    def poll(self) -> None:
        for process in list(self.running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                self.codes[self.running.pop(process)] = os.waitstatus_to_exitcode(status)


def store() -> tuple[int, int]:
    """A process that keeps a store until it is killed or its parent ends, and the store's port."""
    parent, (read, write) = os.getpid(), os.pipe()
    process = os.fork()
    if process == 0:
        kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(write, str(kept.port).encode())
        os.close(write)
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as port:
        return process, int(port.read())


def on_ranks(worker: Callable[[int], object], world: int, tmp_path: Path) -> list:
    """What `worker(rank)` returns on each of `world` gloo ranks."""

    def work(rank: int) -> None:
        dist.init_process_group("gloo", init_method="env://")
        torch.save(worker(rank), tmp_path / f"{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()

    codes = Ranks(work, world).wait()
    assert codes == [0] * world, f"the ranks ended with {codes}"
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
