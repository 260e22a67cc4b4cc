"""Killed on any rank and started again, a run of any mechanism ends with the same bits as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 3  # 30 each: python tests/faults/ranks.py, see there
HARNESS = Path(__file__).with_name("ranks.py")


def run_harness(folder: Path, kills: int, mechanism: str, ranks: int) -> list[dict]:
    root = HARNESS.parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, str(HARNESS), str(folder), str(kills), "1", mechanism, str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("mechanism", ["queue", "v3", "end_to_end", "bank"])
def test_killed_runs_of_every_mechanism_end_in_the_same_bits(tmp_path, mechanism, ranks):
    whole, *killed = run_harness(tmp_path, KILLS, mechanism, ranks)
    assert sum(run["kills"] for run in killed) >= KILLS
    assert {run["hash"] for run in killed} == {whole["hash"]}
