"""moco submit."""

import sys
from typing import Annotated

import typer

from moco.cli.errors import errors


def submit(
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="A command of moco with its options: pretrain DATA --out RUN."),
    ],
    time: Annotated[str, typer.Option("--time", metavar="TIME", help="The time of the job: 90m, 24h, 2d12h.")],
    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="Machines.")] = 1,
    ranks: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Ranks on each machine, for example its GPUs. [default: one process]"),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Give each rank a CPU core instead of a GPU.")] = False,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="A further option of sbatch: --sbatch=--partition=gpu. May be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script of the job.")] = False,
) -> None:
    """Run a command as a Slurm job, requeued when its time is up.

    Five minutes before the time is up, the run saves a checkpoint and requeues the job, which then
    resumes it, bit for bit. Give `--` before the command, so that its options are not read as those of `submit`.
    """
    with errors() as console:
        from moco.train import submit as slurm

        job = slurm.SlurmJob(
            tuple(command), sys.executable, slurm.parse_minutes(time), nodes, ranks, not cpu,
            slurm.make_job_name(command), more=tuple(sbatch or ()),
        )  # fmt: skip
        slurm.check_job(job)
        text = slurm.script(job)
        if dry_run:
            print(text, end="")
            return
        print(slurm.send(text))
        console.say("follow it with: squeue --me, and the log slurm-JOB.out")
