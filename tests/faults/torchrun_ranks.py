"""P5, P6: ranks under torchrun, one of which is killed; and ranks whose folders hold different checkpoints."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from run_ranks import Ranks

from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from tests.faults.killed_runs import RECIPE, ending, make_images
from tests.faults.matrix import ROOT, Fault, Tally

RECIPES = {n: RECIPE.but(f"ranks-{n}", {"method.bn_groups": n, "compute.threads": 1}) for n in (2, 4)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3"]
SECONDS = 180  # in which a run must reach a step


def run(images: Path, out: Path, ranks: int = 2) -> None:
    pretrain(images, out, recipe=RECIPES[ranks], workers=0, device="cpu", eval_data=images, eval_every=1, save_every=2)


def undisturbed(folder: Path, ranks: int = 2) -> tuple[Path, str]:
    images = folder / "images"
    make_images(images, "small")
    assert not any(Ranks(lambda _: run(images, folder / "whole", ranks), ranks).wait())
    return images, ending(folder / "whole")


def ranks_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, args in rows if int(parent) == process and "resource_tracker" not in args]


def reached(out: Path, step: int) -> bool:
    return any(record.get("step", -1) >= step for record in RunFolder(out).metrics())


def torchrun_restarts(count: int, folder: Path, ranks: int) -> Tally:
    """A random rank gets SIGKILL after a random step; torchrun restarts all."""
    rng, tally = random.Random(10 + ranks), Tally()
    images, whole = undisturbed(folder, ranks)
    recipe = folder / "recipe.json"
    recipe.write_text(RECIPES[ranks].to_json())
    while tally.tried < count:
        out, step = folder / f"run{rng.random()}", rng.randrange(-1, 12)
        command = [
            *TORCHRUN, "--nproc-per-node", str(ranks), "-m", "moco", "pretrain", str(images), "--out", str(out),
            "--recipe", str(recipe), "--device", "cpu", "--workers", "0", "--eval-data", str(images),
            "--eval-every", "1", "--save-every", "2",
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip
        end = time.monotonic() + SECONDS
        while not reached(out, step) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        victims = ranks_of(process.pid)
        if victims and not RunFolder(out).finished:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(victims), signal.SIGKILL)
            tally += process.wait(SECONDS) == 0 and ending(out) == whole
        else:  # the kill came too late: does not count as a try
            process.wait(SECONDS)
        shutil.rmtree(out)
    return tally


def ranks_disagree(count: int, folder: Path) -> Tally:
    """Rank 1 has its own folder with older, newer, damaged or no checkpoints: both resume from rank 0's."""
    rng, tally = random.Random(13), Tally()
    images, whole = undisturbed(folder)
    for trial in range(count):
        outs = [folder / f"{trial}-rank{rank}" for rank in (0, 1)]
        for out, keep in zip(outs, (rng.choice([14, 16]), rng.choice([0, 14, 16, 18])), strict=True):
            shutil.copytree(folder / "whole", out)
            (out / "finished.json").unlink()
            for path in (out / "checkpoints").glob("step_*.pt"):  # 14, 16 and 18
                if int(path.stem[5:]) > keep:
                    path.unlink()
        for path in list((outs[1] / "checkpoints").glob("step_*.pt"))[: rng.randrange(2)]:
            path.write_bytes(path.read_bytes()[:-100])
        there = {path: path.read_bytes() for path in outs[1].rglob("*") if path.is_file()}
        codes = Ranks(lambda rank, outs=outs: run(images, outs[rank]), 2).wait()
        untouched = {path: path.read_bytes() for path in outs[1].rglob("*") if path.is_file()} == there
        tally += not any(codes) and untouched and ending(outs[0]) == whole
    return tally


SAME = "all resume from the same step; same bits as the undisturbed run"
SENT = (
    "rank 0 sends its checkpoint to all ranks (`tests/ranks/test_runs.py`: without each rank's own statistics the "
    "results differ)"
)
FAULTS = [
    Fault("P5", "one of two ranks killed under torchrun", SAME, SENT, 8, 0,  # in the suite: tests/ranks/test_launch.py
          partial(torchrun_restarts, ranks=2)),
    Fault("P5", "one of four ranks killed under torchrun", SAME, SENT, 8, 0, partial(torchrun_restarts, ranks=4)),
    Fault("P6", "ranks see different checkpoints", "all resume from rank 0's; those of other ranks are ignored",
          "only rank 0 writes and reads checkpoints (`tests/faults/test_guards_of_readers.py`: if each rank reads its "
          "own, they do not resume from the same step)", 10, 2, ranks_disagree),
]  # fmt: skip
