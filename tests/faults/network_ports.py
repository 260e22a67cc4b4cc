"""S8: the network ports that a run opens, and hostile data sent to each port and store key of two ranks."""

import contextlib
import os
import pickle
import random
import socket
import sys
from pathlib import Path

import torch.distributed as dist
from run_ranks import Ranks
from watch_network import ports_of, watched

from moco.distributed import RankError
from moco.train.pretrain import pretrain
from tests.faults.killed_runs import RECIPE, ROOT, ending, make_images
from tests.faults.matrix import Fault, Tally

TWO = RECIPE.but("two", {"method.bn_groups": 2, "compute.threads": 1})
KEYS = ("failure", "failed", "session0/failure", "session0/failed", "session1/failure")


class Planted:
    """A pickle that creates the file `mark` if it is executed."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def opened(count: int, folder: Path) -> Tally:
    """Runs of two ranks and of one process, embed and eval, in turn, each in its own network namespace."""
    images, recipe, tally = folder / "images", folder / "recipe.json", Tally()
    make_images(images, "small")
    recipe.write_text(TWO.to_json())
    pretrain(images, folder / "run", recipe=TWO, workers=0, device="cpu")
    for number in range(count):
        train = ["pretrain", str(images), "--out", str(folder / f"run{number}"), "--recipe", str(recipe)]
        commands = [
            [*train, "--devices", "2"],
            train,
            ["embed", str(folder / "run"), str(images), "--to", str(folder / f"{number}.npy")],
            ["eval", "knn", str(folder / "run"), str(images)],
        ]
        words = [sys.executable, "-m", "moco", *commands[number % len(commands)], "--workers", "1", "--device", "cpu"]
        seen = watched(words, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
        expected = {"Tcp:ActiveOpens"} if "--devices" in words else set[str]()  # of one rank to the other
        sent = {name for name, value in seen.counts.items() if value}  # by the kernel's books: nothing is missed
        quiet = bool(expected) or not seen.listening
        tally += seen.code == 0 and not seen.away and sent == expected and quiet
    return tally


def strangers(count: int, folder: Path) -> Tally:
    """While two ranks train, send pickles to each port that they listen on, and write some into their store."""
    images, tally, rng = folder / "images", Tally(), random.Random(14)
    make_images(images, "small")
    assert not any(started(images, folder / "whole").wait())
    whole = ending(folder / "whole")
    for number in range(count):
        out, mark = folder / f"run{number}", folder / f"executed{number}"
        running = started(images, out)
        payload = pickle.dumps(Planted(mark))
        for _ in range(20):
            running.poll()
            for port in ports_of(list(running.running)):
                send(port, rng.randbytes(rng.randrange(9)) + payload)
            if running.running and (running.folder / "store").exists():
                plant(running.folder / "store", payload, rng)
        codes = running.wait()
        tally += not mark.exists() and (any(codes) or ending(out) == whole)
    return tally


def started(images: Path, out: Path) -> Ranks:
    def work(_: int) -> None:
        try:
            pretrain(images, out, recipe=TWO, workers=0, device="cpu", eval_data=images, eval_every=1, save_every=2)
        except RankError:
            raise SystemExit(1) from None

    return Ranks(work, 2)


def send(port: int, content: bytes) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as one:
        one.sendall(content)


def plant(store: Path, content: bytes, rng: random.Random) -> None:
    with contextlib.suppress(RuntimeError):
        dist.FileStore(str(store), -1).set(rng.choice(KEYS), content)


FAULTS = [
    Fault("S8", "network ports that a run opens", "one process: none. Several ranks: only on the loopback interface",
          "the ranks of one machine join through a file; gloo is bound to the loopback interface (`tests/ranks/"
          "test_network.py`: under torch's elastic launcher they listen on all addresses)", 8, 1, opened),
    Fault("S8", "pickles sent to the ranks' ports and written to their store", "none is executed; the run ends with "
          "the same bits, or with an error", "the store is read as JSON (`tests/ranks/test_distributed.py`: read by "
          "pickle, its content is executed)", 10, 1, strangers),
]  # fmt: skip
