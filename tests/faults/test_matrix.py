"""A few tries of each fault of the matrix. docs/reliability.md has the results of the full counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import matrix

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def results_of(tmp_path: Path, *arguments: str) -> list[dict]:
    """The results of the runner, in a process that has no other threads."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{matrix.ROOT}{os.pathsep}{matrix.ROOT / 'tests'}",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.faults.matrix", "--to", str(tmp_path / "results.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=matrix.ROOT)
    assert (tmp_path / "results.json").exists(), done.stderr[-3000:]
    return json.loads((tmp_path / "results.json").read_text())


@pytest.mark.parametrize("module", matrix.modules())
def test_every_try_of_every_fault_survives(tmp_path, module):
    results = results_of(tmp_path, "--quick", "--module", module)
    assert results
    assert [one for one in results if one["lost"] or one["survived"] != one["tried"]] == []
    assert all(one["tried"] > 0 for one in results)


def test_a_fault_that_crashes_its_process_counts_as_lost():
    fault = matrix.Fault("P1", "planted", "", "", 3, 1, lambda count, folder: os._exit(1))
    (one,) = matrix.tried([fault], quick=False, jobs=1)
    assert one | {"seconds": 0} == {"fault": "P1 planted", "tried": 3, "survived": 0, "lost": 3, "seconds": 0}


def test_the_page_shows_the_results_as_they_were_measured():
    page, results = matrix.PAGE.read_text(), json.loads(matrix.RESULTS.read_text())
    assert matrix.published(results, page) == page


def test_every_fault_has_been_tried_with_its_full_count():
    tried = {one["fault"]: one["tried"] for one in json.loads(matrix.RESULTS.read_text())}
    assert [fault.title for fault in matrix.faults([]) if tried.get(fault.title, 0) < fault.count] == []
