"""The compiled kernels where numba's usual folders for its cache cannot be written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import moco

SMALL = """
from numba import njit

@njit("int64(int64)", cache=True)
def twice(x):
    return 2 * x
"""
PROGRAM = """
from moco.data.augment import cpu
print(cpu.kernels(wait=True).twice(21))
"""


NO_PROCESS = "import sys\nsys.executable = '/dev/null/python'\n" + PROGRAM


def test_where_no_process_can_be_started_the_kernels_are_compiled_in_this_one(tmp_path: Path):
    package = tmp_path / "moco"
    shutil.copytree(Path(moco.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.zip"))
    (package / "data" / "augment" / "kernels.py").write_text(SMALL)
    env = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", NO_PROCESS]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_without_a_cache_that_can_be_written_to_the_kernels_are_compiled_in_a_temporary_folder(tmp_path: Path):
    package, temporary = tmp_path / "moco", tmp_path / "temporary"
    shutil.copytree(Path(moco.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.zip"))
    (package / "data" / "augment" / "kernels.py").write_text(SMALL)  # the real ones take twenty seconds
    (package / "data" / "augment" / "__pycache__").touch()  # a file: no folder can be made there, even by root
    temporary.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    env |= {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
    assert not done.stderr
    assert not list(temporary.glob("moco-kernels-*"))
