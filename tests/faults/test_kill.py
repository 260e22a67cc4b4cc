"""Killed anywhere and started again, a run ends with the same bits as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")


def run_harness(folder: Path, kills: int, seed: int, kind: str) -> list[dict]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HARNESS.parents[2])}
    command = [sys.executable, str(HARNESS), str(folder), str(kills), str(seed), kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HARNESS.parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "kills"), [("mixed", 50), ("small", 25)])
def test_kills_at_random_moments_end_in_the_same_bits(tmp_path, kind, kills):
    whole, *killed = run_harness(tmp_path, kills, seed=1, kind=kind)
    assert sum(run["kills"] for run in killed) >= kills
    assert {run["hash"] for run in killed} == {whole["hash"]}
