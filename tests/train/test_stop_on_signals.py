"""What a signal does before training, after it, and under Slurm."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moco.train.slurm import requeue

ROOT = Path(__file__).parents[2]
WAIT = "import sys, time; print('ready', flush=True); time.sleep(60)"
GUARDED = f"from moco.train.slurm import stop_at_once_on_signals; stop_at_once_on_signals(); {WAIT}"


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Path:
    """What an `scontrol` that stands first in PATH was asked, a line each; it fails for job 13."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tools}/asked\n[ "$2" != 13 ] || {{ echo "Invalid job id" >&2; exit 1; }}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return tools / "asked"


def ended(code: str, number: int) -> tuple[int, str]:
    """Exit code and stderr of a program that gets two signals while it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_outside_of_training_a_signal_ends_the_command_with_the_resumable_code(number):
    code, said = ended(GUARDED, number)
    assert code == 75
    assert f"stopped by {signal.Signals(number).name}. Run the same command again to resume" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_without_the_handler_the_signal_kills_it(number):
    assert ended(WAIT, number)[0] == -number


def test_slurm_is_asked_once_to_requeue(asked):
    assert ended(GUARDED, signal.SIGUSR1)[0] == 75
    assert asked.read_text() == "requeue 4711\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_other_signals_do_not_requeue(asked, number):
    assert requeue(number) == ""
    assert not asked.exists()


def test_only_rank_0_requeues(asked, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert requeue(signal.SIGUSR1) == ""
    assert not asked.exists()


def test_the_message_says_that_slurm_did_not_requeue(asked, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert requeue(signal.SIGUSR1) == "Slurm did not requeue job 13: Invalid job id"


def test_the_message_says_that_scontrol_is_missing(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("PATH", "")
    assert requeue(signal.SIGUSR1).startswith("Slurm could not be asked to requeue job 13:")


def test_without_slurm_nothing_is_requeued(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue(signal.SIGUSR1) == ""
