"""What is to be had without torch, from a command's first moment on: to stop by a signal, and another turn by Slurm."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # as in distributed.py, which needs torch
RESUMABLE = 75  # the exit code
PATIENCE = 60  # [s] that Slurm is given


def requeue(number: int) -> str:
    """Ask Slurm for another turn of this job where SIGUSR1 came (sbatch --signal=USR1@120), on rank 0 alone.

    Returns:
        What was done, as a sentence; empty where there was nothing to do.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or not job or os.environ.get("RANK", "0") != "0":
        return ""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"Slurm could not be asked to requeue job {job}: {error}"
    if done.returncode:
        return f"Slurm did not requeue job {job}: {done.stderr.strip() or done.returncode}"
    return f"Slurm has requeued job {job}"


def stop_at_once_on_signals() -> None:
    """Until the training loop takes them over, and after it, signals end the process: there is nothing to save."""

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one must not ask Slurm again
        said = requeue(number)
        with suppress(OSError):  # nobody reads it
            print(
                f"moco: stopped by {signal.Signals(number).name}: run the same command again. {said}", file=sys.stderr
            )
        os._exit(RESUMABLE)

    for number in SIGNALS:
        signal.signal(number, handle)
