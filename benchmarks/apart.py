"""Peers that conflict with installed packages: each runs in a process with an environment of its own.

That environment has only the peer and takes all other packages from this one, so only the peer differs.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from benchmarks.measure import Work

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv" / "peers"
GO, DONE = "go", "done"


class Unavailable(Exception):
    """A peer that cannot be installed or run here. The message says why."""


@dataclass(frozen=True)
class Peer:
    """A peer: its requirement for pip, and its work on the files of a folder."""

    requirement: str
    work: Callable[[Path], Work]
    more: Sequence[str] = ()  # its dependencies that are not installed here

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    def python(self) -> Path:
        """The interpreter of its environment, which is created if need be. Raises Unavailable."""
        place = ENVIRONMENTS / self.name
        python, finished = place / "bin" / "python", place / "finished"
        wanted = " ".join((self.requirement, *self.more))
        if not finished.exists() or finished.read_text() != wanted:
            _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(place))
            _run(
                sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
                self.requirement, *self.more,
            )  # fmt: skip
            inside = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
            (inside / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # searched last
            finished.write_text(wanted)
        return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])


class PeerProcess(AbstractContextManager["PeerProcess"]):
    """A process that does a peer's work on request. Raises Unavailable if it ends."""

    def __init__(self, python: Path, peer: str, folder: Path):
        command = [str(python), "-m", "benchmarks.apart", peer, str(folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        self.what = self._answer()

    def work(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{GO}\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(DONE):
                return line.removeprefix(DONE).strip()
        raise Unavailable(f"its process ended with {self.process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def pillow(folder: Path) -> Work:
    """The reference, with the Pillow of the environment."""
    from benchmarks.inputs import data_of, folder_of, usual

    return usual(folder_of(folder)[1], data_of("v2"))


def dali(folder: Path) -> Work:
    from benchmarks.dali import views

    return views(folder)


PEERS = {
    "pillow-simd": Peer("pillow-simd==12.1.1.post0", pillow),
    "nvidia-dali": Peer(
        "nvidia-dali-cuda130==2.4.0",
        dali,
        more=("astunparse", "gast", "libcst", "makefun", "nvidia-nvimgcodec-cu13", "nvtx", "optree", "pyyaml", "six"),
    ),
}
HERE = "pillow"  # the reference with the Pillow of this environment, in a process like the peers


def serve(peer: str, folder: Path) -> None:
    """Do the work once for every line on stdin."""
    torch.set_num_threads(1)
    work = pillow(folder) if peer == HERE else PEERS[peer].work(folder)
    work()
    print(DONE, _installed(peer), flush=True)
    for _ in sys.stdin:
        work()
        print(DONE, flush=True)


def _installed(peer: str) -> str:
    name = peer if peer == HERE else PEERS[peer].name
    return f"{name} {version(name)}"


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
