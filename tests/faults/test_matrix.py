"""A few tries of each fault of the matrix. docs/reliability.md has the results of the full counts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import matrix

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


class Runner:
    """A process that tries the faults of one module after another. It has no other threads, so that it can fork."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None

    def results(self, module: str) -> list[dict]:
        """The results of a few tries of each fault of a module."""
        if self.process is None:
            self.process = self._start()
        file = self.folder / f"{module}.json"
        try:
            self.process.stdin.write(f"{module}\t{file}\n")
            self.process.stdin.flush()
            while not file.exists():
                assert self.process.poll() is None, (self.folder / "said").read_text()[-3000:]
                time.sleep(0.02)
        except BaseException:  # the time limit of the test
            self.end()
            raise
        return json.loads(file.read_text())

    def _start(self) -> subprocess.Popen:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{matrix.ROOT}{os.pathsep}{matrix.ROOT / 'tests'}",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.faults.matrix", "--serve"]
        with (self.folder / "said").open("a") as said:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=said, text=True, env=environment, cwd=matrix.ROOT
            )  # fmt: skip

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    one = Runner(tmp_path_factory.mktemp("matrix"))
    yield one
    one.end()


@pytest.mark.parametrize("module", matrix.modules())
def test_every_try_of_every_fault_survives(runner: Runner, module: str):
    results = runner.results(module)
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
