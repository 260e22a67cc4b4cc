"""Signals outside of training, and requeueing by Slurm. Imports no torch, so a command can handle signals at once."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

from moco.stop_signals import STOP_SIGNALS
from moco.text import message_of

RESUMABLE = 75  # the exit code
TIMEOUT = 60  # [s] of scontrol


def requeue(number: int) -> str:
    """Requeue this Slurm job if the signal is SIGUSR1 (sbatch --signal=USR1@120). Only rank 0 does.

    Returns:
        A sentence about what was done; empty if nothing.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or not job or os.environ.get("RANK", "0") != "0":
        return ""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"Slurm could not be asked to requeue job {job}: {message_of(error)}"
    if done.returncode:
        return f"Slurm did not requeue job {job}: {done.stderr.strip() or done.returncode}"
    return f"Slurm has requeued job {job}"


def stop_at_once_on_signals() -> None:
    """Make signals end the process. Before and after training, which handles them itself, nothing is to be saved."""

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second signal must not requeue again
        requeued = requeue(number)
        with suppress(OSError):  # stderr is closed
            print(
                f"moco: stopped by {signal.Signals(number).name}. Run the same command again to resume. {requeued}",
                file=sys.stderr,
            )
        os._exit(RESUMABLE)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
