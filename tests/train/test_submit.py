"""`moco submit`: the script of a job, run by stand-ins for sbatch, srun and scontrol."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.recipe_error import RecipeError
from moco.train.run_folder import RunFolder
from moco.train.submit import SlurmJob, check_job, make_job_name, parse_minutes, script

ROOT = Path(__file__).parents[2]


def job(*command: str, **named) -> SlurmJob:
    return SlurmJob(command or ("pretrain", "a b/", "--out", "runs/x"), "/py thon", 1440, **named)


def words_of(text: str) -> list[str]:
    """The words of the last command of a script, as a shell reads them, with `echo` in place of srun."""
    shown = text.replace("exec srun", 'srun() { printf "%s\\n" "$@"; }; scontrol() { echo host7; echo host8; }; srun')
    shown = shown.replace("srun() {", "srun() {", 1)
    first, *_ = [line for line in shown.splitlines() if line.startswith("first=")] or [""]
    functions = "scontrol() { echo host7; echo host8; }\n"
    body = functions + (first + "\n" if first else "") + shown.splitlines()[-1]
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "host[7-8]"}
    done = subprocess.run(["bash", "-c", body], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


@pytest.mark.parametrize(("text", "minutes"), [("90m", 90), ("24h", 1440), ("2d12h", 3600), ("1h30m", 90)])
def test_times_are_in_minutes(text: str, minutes: int):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "24", "h", "1.5h", "-1h", "0m", "24h\n", "10s"])
def test_other_times_are_refused(text: str):
    with pytest.raises(RecipeError, match="expects a time such as"):
        parse_minutes(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (job("erase"), "expected a command"),
        (job("eval", "x", nodes=2), "runs in one process"),
        (job("pretrain", "x", "--devices", "2"), "give --ranks"),
        (job("pretrain", "x", "--devices=2"), "give --ranks"),
        (job(more=("--a=1\n#SBATCH --b",)), "option of sbatch"),
        (job(more=("rm",)), "option of sbatch"),
        (SlurmJob(("pretrain",), "python", 10), "longer than 10 minutes"),
    ],
)
def test_what_cannot_run_is_refused(wrong: SlurmJob, message: str):
    with pytest.raises(RecipeError, match=message):
        check_job(wrong)


def test_on_one_machine_moco_starts_the_ranks_and_words_stay_whole():
    assert words_of(script(job(ranks=8))) == [
        "/py thon", "-m", "moco", "pretrain", "a b/", "--out", "runs/x", "--devices", "8",
    ]  # fmt: skip


def test_on_several_machines_torchrun_meets_on_the_first_and_passes_sigusr1_on():
    words = words_of(script(job(nodes=4, ranks=8)))
    at = words.index("moco")
    assert words[at - 1 :] == ["-m", "moco", "pretrain", "a b/", "--out", "runs/x"]
    named = dict(zip(words[3 : at - 1 : 2], words[4 : at - 1 : 2], strict=True))
    assert words[:3] == ["/py thon", "-m", "torch.distributed.run"]
    assert (named["--nnodes"], named["--nproc-per-node"]) == ("4", "8")
    assert (named["--rdzv-id"], named["--rdzv-endpoint"]) == ("7", "host7:29400")
    assert "SIGUSR1" in named["--signals-to-handle"].split(",")


def test_the_options_of_the_job_stand_before_the_first_command():
    head = script(job(nodes=2, ranks=4, more=("--partition=gpu",))).split("\n\n")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    options = [line.removeprefix("#SBATCH ") for line in head[1:]]
    assert {"--nodes=2", "--gpus-per-node=4", "--time=1440", "--requeue", "--partition=gpu"} <= set(options)
    assert any(option.startswith("--signal=USR1@") for option in options)
    assert "--cpus-per-task=4" in script(job(ranks=4, on_gpus=False))


@pytest.mark.parametrize(
    ("out", "name"), [("runs/photos", "moco-photos"), ("a b;c", "moco-a-b-c"), ("x\n#SBATCH", "moco-x-SBATCH")]
)
def test_the_name_of_a_job_has_plain_characters(out: str, name: str):
    assert make_job_name(["pretrain", "d", "--out", out]) == name
    assert make_job_name(["pretrain", "d", f"--out={out}"]) == name


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["submit", "--time", "1h", "--", "pretrain", "x", "--out", "y"])
    assert done.exit_code == 1
    assert "sbatch was not found" in done.stderr


def stand_ins(folder: Path) -> Path:
    """sbatch keeps the script; srun runs its command; scontrol notes what it was asked."""
    folder.mkdir()
    for name, body in {
        "sbatch": f"cat > {shlex.quote(str(folder / 'job.sh'))}; echo Submitted batch job 7",
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >> {shlex.quote(str(folder / "asked"))}',
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_job_that_gets_sigusr1_saves_and_is_requeued_and_the_same_script_ends_the_run(pictures, tiny, tmp_path):
    slurm, out = stand_ins(tmp_path / "slurm"), tmp_path / "run"
    recipe = tmp_path / "recipe.json"
    recipe.write_text(tiny.but(None, {"optim.epochs": 60}).to_json())
    environment = os.environ | {
        "PATH": f"{slurm}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7", "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "moco",
        "submit",
        "--time",
        "1h",
        "--",
        "pretrain",
        str(pictures),
        "--out",
        str(out),
    ]
    command += ["--recipe", str(recipe), "--device", "cpu", "--workers", "0", "--no-report"]
    sent = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Submitted batch job 7" in sent.stdout
    running = subprocess.Popen(["bash", slurm / "job.sh"], env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not RunFolder(out).metrics() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    running.send_signal(signal.SIGUSR1)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 75, said
    assert (slurm / "asked").read_text().split() == ["requeue", "7"]
    stopped = RunFolder(out).metrics()[-1]["step"]
    assert stopped < 300
    subprocess.run(["bash", slurm / "job.sh"], env=environment, capture_output=True, check=True)
    steps = [record["step"] for record in RunFolder(out).metrics()]
    assert RunFolder(out).finished
    assert steps == list(range(1, 301))
