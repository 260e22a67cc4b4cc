"""Ranks for tests: processes forked from this one, which has imported everything already."""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it when they are made: once here, and not in every rank
import torch.distributed as dist

from moco.distributed import STORE
from moco.launch import environment


class Ranks:
    """`work(rank)` in `world` child processes, each with the environment that `launch` would give it."""

    def __init__(self, work: Callable[[int], object], world: int):
        self.folder = Path(tempfile.mkdtemp(prefix="ranked-"))  # with the store at which they meet
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
            os.environ |= environment(rank, world, self.folder / "store")
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
        shutil.rmtree(self.folder)
        return [code for code in self.codes if code is not None]

    def poll(self) -> None:
        for process in list(self.running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                self.codes[self.running.pop(process)] = os.waitstatus_to_exitcode(status)


def on_ranks(worker: Callable[[int], object], world: int, tmp_path: Path) -> list:
    """What `worker(rank)` returns on each of `world` gloo ranks."""

    def work(rank: int) -> None:
        dist.init_process_group("gloo", store=dist.FileStore(os.environ[STORE], -1), rank=rank, world_size=world)
        torch.save(worker(rank), tmp_path / f"{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()

    codes = Ranks(work, world).wait()
    assert codes == [0] * world, f"the ranks ended with {codes}"
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
