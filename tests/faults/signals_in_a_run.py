"""P7: signals at any phase of a run; under Slurm, one that requeues the job."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from moco.train import checkpoint
from tests.faults.killed_runs import RECIPE, ending, fork, make_images
from tests.faults.matrix import ROOT, Fault, Tally

RESUMABLE = 75
CHOICES = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SECONDS = 120  # in which a command must end


def scontrol(place: Path) -> Path:
    """A folder for PATH with an `scontrol` that records its arguments."""
    place.mkdir()
    script = place / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> "{place}/asked"\n')
    script.chmod(0o755)
    return place


def command(images: Path, out: Path, recipe: Path) -> list[str]:
    return [
        sys.executable, "-m", "moco", "pretrain", str(images), "--out", str(out), "--recipe", str(recipe), "--device",
        "cpu", "--workers", "1", "--eval-data", str(images), "--eval-every", "1", "--save-every", "2",
    ]  # fmt: skip


def run(arguments: list[str], tools: Path, numbers: list[int], seconds: float) -> int:
    """The exit code of the command, which gets the signals after `seconds`, one shortly after the other."""
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    process = subprocess.Popen(
        arguments, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    if numbers:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            for number in numbers:
                process.send_signal(number)
                time.sleep(0.02)
    return process.wait(SECONDS)


def signals(count: int, folder: Path) -> Tally:
    """One signal, or two, at a random moment between the first import and the end; then the same command again."""
    rng, tally = random.Random(10), Tally()
    images, recipe = folder / "images", folder / "recipe.json"
    make_images(images, "small")
    recipe.write_text(RECIPE.to_json())
    tools, start = scontrol(folder / "tools"), time.monotonic()
    assert run(command(images, folder / "whole", recipe), tools, [], 0) == 0
    seconds, whole = time.monotonic() - start, ending(folder / "whole")
    for trial in range(count):
        out, asked = folder / f"run{trial}", tools / "asked"
        asked.unlink(missing_ok=True)
        number, twice = CHOICES[trial % 3], trial % 5 == 4
        numbers = [number] * (1 + twice)
        code = run(command(images, out, recipe), tools, numbers, rng.uniform(0.3, 1.0) * seconds)
        turns = asked.read_text().splitlines() if asked.exists() else []
        if twice:  # ended at once; Slurm requeues once, or not if there was no time
            good = code in (0, RESUMABLE, -number) and len(turns) <= 1
        else:
            due = ["requeue 4711"] if number == signal.SIGUSR1 and code == RESUMABLE else []
            good = (code in (0, RESUMABLE) or (code == -number and idle(out))) and turns == due
        good = good and (not (out / "checkpoints").exists() or loads(out))
        good = good and went_on(images, out) and ending(out) == whole
        if not good:
            print(f"signals {numbers}: code {code}, Slurm was asked {turns}", file=sys.stderr)
        tally += good
    return tally


def went_on(images: Path, out: Path) -> bool:
    """Whether the run finishes when it is resumed without a signal, in a fork (faster)."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(images, out, workers=1), 0)[1]) == 0


def idle(out: Path) -> bool:
    """Whether the run has not started yet, or has finished: the signal came while Python started or exited."""
    return not (out / "recipe.json").exists() or (out / "finished.json").exists()


def loads(out: Path) -> bool:
    folder = out / "checkpoints"
    return not any(folder.glob("step_*.pt")) or checkpoint.newest_intact(folder) is not None


FAULTS = [
    Fault(
        "P7", "SIGTERM, SIGINT, SIGUSR1, one or two, at any phase", "code 75 after the current step, or at once before "
        "the first (ended by the signal while Python starts or exits); one `scontrol requeue`; resumed: the same bits",
        "handlers are installed at the start of the command (`tests/train/test_stop_on_signals.py`: without "
        "them, the signal ends the run without a checkpoint)", 40, 4, signals,
    ),
]  # fmt: skip
