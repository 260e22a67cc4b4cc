"""A job of Slurm for a run: its script, and the call of sbatch. Imports no torch."""

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from moco.planning.budget import TIME_UNITS
from moco.recipe_error import RecipeError

COMMANDS = ("pretrain", "transfer", "ablate", "eval", "embed")  # of these, `pretrain` alone runs on several ranks
PORT = 29400  # of the rendezvous, on the first machine
STOP = 300  # [s] before the time is up, in which the run ends a step, saves and is requeued
TIMEOUT = 60  # [s] of sbatch
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # that torchrun passes on


@dataclass(frozen=True)
class SlurmJob:
    """What the job needs."""

    command: tuple[str, ...]  # of moco: pretrain, DATA, --out, ...
    python: str  # the interpreter
    minutes: int
    nodes: int = 1
    ranks: int | None = None  # of a node; None: one process
    on_gpus: bool = True  # a rank has a GPU; False: a core
    name: str = "moco"
    log: str = "slurm-%j.out"
    more: tuple[str, ...] = ()  # further options of sbatch: --partition=gpu


def parse_minutes(text: str) -> int:
    """Minutes, of a time such as 90m, 24h or 2d12h. Raises RecipeError."""
    parts = re.findall(r"(\d+)([dhm])", text)
    if (
        not parts
        or "".join(map("".join, parts)) != text
        or not (found := sum(int(n) * TIME_UNITS[u] for n, u in parts))
    ):
        raise RecipeError(f"--time expects a time such as 90m, 24h or 2d12h, got '{text}'")
    return found // 60


def check_job(job: SlurmJob) -> None:
    """Raise RecipeError for a job that cannot run."""
    if not job.command or job.command[0] not in COMMANDS:
        given = f", got '{job.command[0]}'" if job.command else ""
        raise RecipeError(f"expected a command to run after --: {', '.join(COMMANDS)}{given}")
    if job.command[0] != "pretrain" and (job.nodes > 1 or job.ranks):
        raise RecipeError(f"moco {job.command[0]} runs in one process: leave --nodes and --ranks out")
    if any(one.partition("=")[0] == "--devices" for one in job.command):
        raise RecipeError("--devices is set by moco submit: give --ranks instead")
    if job.minutes * 60 <= 2 * STOP:
        raise RecipeError(
            f"--time must be longer than {2 * STOP // 60} minutes: a run saves {STOP // 60} minutes before"
        )
    wrong = [one for one in job.more if not re.fullmatch(r"-[A-Za-z-][^\n]*", one)]
    if wrong:
        raise RecipeError(f"--sbatch expects an option of sbatch, such as --partition=gpu, got {wrong[0]!r}")


def script(job: SlurmJob) -> str:
    """The batch script. One machine: moco starts the ranks. Several: torchrun on each.

    Slurm sends SIGUSR1 before the time is up: the run saves, and rank 0 requeues the job, which resumes. After a failed
    machine Slurm requeues it.
    """
    resources = ["--ntasks-per-node=1"]
    if job.ranks and job.on_gpus:
        resources.append(f"--gpus-per-node={job.ranks}")
    elif job.ranks:
        resources.append(f"--cpus-per-task={job.ranks}")
    options = [
        f"--job-name={job.name}", f"--nodes={job.nodes}", *resources, f"--time={job.minutes}",
        f"--signal=USR1@{STOP}", "--requeue", "--open-mode=append", f"--output={job.log}", *job.more,
    ]  # fmt: skip
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "", "export PYTHONUNBUFFERED=1"]
    command = ["-m", "moco", *job.command]
    if job.ranks and not job.on_gpus:
        command += ["--device", "cpu"]
    if job.nodes == 1:
        alone = [job.python, *command, *(["--devices", str(job.ranks)] if job.ranks else [])]
        return "\n".join([*lines, f"exec srun {shlex.join(alone)}", ""])
    launcher = [
        job.python, "-m", "torch.distributed.run", "--nnodes", str(job.nodes), "--nproc-per-node", str(job.ranks or 1),
        "--rdzv-backend", "c10d", "--max-restarts", "3", "--shutdown-timeout", str(STOP - 60),
        "--signals-to-handle", SIGNALS,
    ]  # fmt: skip
    return "\n".join([
        *lines,
        'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f'exec srun {shlex.join(launcher)} --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:{PORT}" '
        f"{shlex.join(command)}",
        "",
    ])  # fmt: skip


def send(text: str, *, to: Sequence[str] = ("sbatch",)) -> str:
    """Give the script to sbatch, in this folder. Returns what it answers. Raises OSError."""
    try:
        done = subprocess.run(to, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise OSError(
            f"{to[0]} was not found: run this where Slurm is installed, or print the script with --dry-run"
        ) from None
    except subprocess.TimeoutExpired:
        raise OSError(f"{to[0]} did not answer within {TIMEOUT} s: see with squeue whether the job is there") from None
    if done.returncode:
        raise OSError(f"{to[0]} has refused the job: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def make_job_name(command: Sequence[str]) -> str:
    """A name for the job: that of the run folder, in plain characters."""
    outs = [b for a, b in pairwise(command) if a == "--out"]
    outs += [one.partition("=")[2] for one in command if one.startswith("--out=")]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(outs[-1]).name) if outs else ""
    return f"moco-{plain}" if plain else "moco"
