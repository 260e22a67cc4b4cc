"""The command with standard streams of any encoding, or that are closed, full, or read by nobody."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sample_pictures import make_pictures

from moco.cli.streams import replace_missing_characters
from moco.evaluate.table import Score, Table
from tests.data.bombs import gif, gif_frame

ROOT = Path(__file__).parent.parent


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, where $MOCO is the command."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MOCO": f"{sys.executable} -m moco", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=environment, timeout=120
    )


@pytest.mark.parametrize("reader", ["head -c 1 > /dev/null", "true"])
def test_a_closed_pipe_is_not_reported_as_an_error(tmp_path: Path, reader: str):
    done = shell(f"$MOCO recipes --json | {reader}; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")  # 0: all was in the pipe before the reader left


def test_a_result_that_cannot_be_printed_is_not_success(tmp_path: Path):
    done = shell("(sleep 2; exec $MOCO recipes) | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("141", "")


def test_a_full_disk_under_stdout_is_reported(tmp_path: Path):
    done = shell("$MOCO recipes > /dev/full", tmp_path)
    assert done.returncode == 1
    assert "the result could not be written to stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_an_error_has_its_exit_code_whatever_stderr_is(tmp_path: Path, closed: str):
    done = shell(f"$MOCO explain nothing {closed}", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_with_closed_streams_is_made_to_its_end(tmp_path: Path, closed: str):
    make_pictures(tmp_path / "pictures", 40)
    done = shell(f"$MOCO pretrain pictures --out run --epochs 1 --set encoder.width=0.0625 {closed}", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "run" / "finished.json").is_file()
    assert (tmp_path / "run" / "recipe.json").read_text().startswith("{")


@pytest.mark.parametrize(
    ("encoding", "score", "names"),
    [
        ("ascii", "50.0 +- 14.1", r"gr\xf6\xdfe, \u4f60\u597d"),
        ("latin-1", "50.0 ± 14.1", r"größe, \u4f60\u597d"),
        ("utf-8", "50.0 ± 14.1", "größe, 你好"),
    ],
)
def test_a_table_is_printed_in_any_encoding(encoding: str, score: str, names: str, monkeypatch: pytest.MonkeyPatch):
    rows = {"raw pixels": {"linear": Score(50, 100, draws=[40.0, 60.0])}, "mine": {"linear": Score(50, 100)}}
    table = Table("mine", ["raw pixels"], rows, chance=50, classes=2, how="x", class_names=["größe", "你好"])
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    replace_missing_characters()
    print(table, flush=True)
    assert score in written.getvalue().decode(encoding)
    assert names in written.getvalue().decode(encoding)


def test_pillows_warnings_do_not_come_between_the_lines(tmp_path: Path):
    (tmp_path / "large.gif").write_bytes(gif((10_000, 9000), gif_frame(1, 1)))  # DecompressionBombWarning
    done = shell("$MOCO check . --json", tmp_path)
    assert "make it smaller" in json.loads(done.stdout)["bad"]["large.gif"]
    assert "Warning" not in done.stderr


def test_a_warning_of_ours_is_shown_as_a_message(tmp_path: Path):
    code = (
        "import warnings; from pathlib import Path; import moco; from moco.cli.errors import errors\n"
        "ours = Path(moco.__file__).parent / 'a.py'\n"
        "with errors():\n"
        "    warnings.warn_explicit('the newest is damaged', UserWarning, str(ours), 3)\n"
        "    warnings.warn_explicit('of a library', UserWarning, 'elsewhere.py', 3)\n"
        "warnings.warn_explicit('later', UserWarning, str(ours), 3)\n"
    )
    lines = shell(f"{sys.executable} -c {shlex.quote(code)}", tmp_path).stderr.splitlines()
    assert lines[:2] == ["caution: the newest is damaged", "elsewhere.py:3: UserWarning: of a library"]
    assert lines[-1].endswith("a.py:3: UserWarning: later")


RANK = """
import atexit, os, sys, threading, time, weakref
from moco.cli.streams import run_and_flush, run_as_rank

class Aborts:
    def __del__(self, abort=os.abort):  # as threads of gloo do, if they are unlucky
        abort()

aborts = Aborts()  # lives until the interpreter is finalized
weakref.finalize(aborts, print, "finalized")
atexit.register(print, "at exit")

def command():
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    print("result")
    print("message", file=sys.stderr)
    {end}

run_as_rank(command)
"""


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("", 0, "message"),
        ("raise SystemExit(75)", 75, "message"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_a_rank_ends_with_its_own_code_whatever_its_threads_would_do_to_the_interpreter(end, code, message):
    program = RANK.replace("{end}", end)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split("\n")) == (code, ["result", "thread", "at exit", "finalized", ""])
    assert done.stderr.strip().split("\n")[-1] == message


def test_an_interpreter_that_is_finalized_would_abort_the_same_process():
    program = RANK.replace("{end}", "").replace("run_as_rank", "run_and_flush")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == -6  # SIGABRT
