"""A background process searches the folders: it finds what the main process would find, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_pictures import make_pictures

from moco.data.sources import background_scan
from moco.data.sources.background_scan import BackgroundScan
from moco.data.sources.folder import DataError, find_images

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs a safe fork")


def run_without_torch(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter, which has not imported torch."""
    start = "import multiprocessing, os, signal, sys\nfrom moco.data.sources.background_scan import BackgroundScan\n"
    return subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for label in ("cats", "dogs"):
        make_pictures(tmp_path / "pictures" / label, 3)
    (tmp_path / "pictures" / "dogs" / "notes.txt").write_text("no image")
    return tmp_path / "pictures"


@pytest.fixture
def many(pictures: Path) -> Path:
    """More than a pipe holds."""
    (pictures / "many.txt").write_text("cats/0000.png\n" * 10_000)
    return pictures / "many.txt"


def test_opening_folders_imports_no_torch(pictures: Path):
    done = run_without_torch(
        "from moco.data.sources.open import open_images; open_images(sys.argv[1]); print('torch' in sys.modules)",
        pictures,
    )
    assert done.stdout.strip() == "False", done.stderr


@linux
def test_the_background_scan_finds_the_same_images_as_find_images(pictures: Path):
    done = run_without_torch(
        "scan = BackgroundScan(sys.argv[1:])\nassert scan._search\n"
        "from moco.data.sources.folder import find_images\nfrom numpy.testing import assert_equal\n"
        "found, expected = scan.find(), find_images(sys.argv[1:])\n"
        "assert_equal(vars(found), vars(expected))\nassert_equal(found.read(4), expected.read(4))\n"
        "assert not multiprocessing.active_children()\nprint(found.classes, found.skipped)", pictures,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("['cats', 'dogs'] 1 x .txt file", "")


@linux
def test_its_error_is_raised_in_the_main_process(tmp_path: Path):
    with pytest.raises(DataError) as expected:
        find_images(tmp_path)
    done = run_without_torch(
        "scan = BackgroundScan(sys.argv[1:])\nassert scan._search\n"
        "try: scan.find()\nexcept ValueError as error: print(type(error).__name__, error)", tmp_path,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (f"DataError {expected.value}", "")


@linux
@pytest.mark.parametrize("sending", [False, True])
def test_if_the_process_is_killed_the_main_process_searches(many: Path, sending: bool):
    wait = "scan._search.result.poll(30)" if sending else ""
    done = run_without_torch(
        f"scan = BackgroundScan(sys.argv[1:])\n{wait}\n"
        "os.kill(scan._search.process.pid, signal.SIGKILL)\n"
        "print(len(scan.find().names), multiprocessing.active_children())", many,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("10000 []", "")


@linux
def test_if_no_process_can_be_started_the_main_process_searches(pictures: Path):
    done = run_without_torch(
        "def refuse(): raise BlockingIOError(11, 'Resource temporarily unavailable')\nos.fork = refuse\n"
        "scan = BackgroundScan(sys.argv[1:])\nassert not multiprocessing.active_children()\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\nprint(len(scan.find().names))", pictures,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("6", "")


@linux
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit"])
def test_the_process_ends_silently_when_the_main_process_ends(many: Path, end: str):
    done = run_without_torch(
        f"scan = BackgroundScan(sys.argv[1:])\nprint(scan._search.process.pid, flush=True)\n{end}", many
    )
    assert done.stderr == ""
    assert ended(int(done.stdout))


def ended(process: int) -> bool:
    """Whether `process` ends within half a minute; a zombie counts as ended."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@linux
def test_a_process_that_hangs_in_a_read_ends_with_the_command(tmp_path: Path):
    os.mkfifo(tmp_path / "slow.txt")
    done = run_without_torch(
        "scan = BackgroundScan(sys.argv[1:])\nprint(scan._search.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "slow.txt",
    )  # fmt: skip
    assert ended(int(done.stdout))


@linux
def test_a_signal_to_the_process_group_is_reported_once(tmp_path: Path):
    """As from a terminal. A FIFO in place of a list file makes the search wait."""
    os.mkfifo(tmp_path / "slow.txt")
    command = subprocess.Popen(
        [sys.executable, "-m", "moco", "pretrain", str(tmp_path / "slow.txt"), "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    until = time.monotonic() + 30
    while not children.read_text().split() and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(command.pid, signal.SIGINT)
    _, messages = command.communicate(timeout=60)
    assert (command.returncode, messages.count("stopped by SIGINT"), messages.count("\n")) == (75, 1, 1), messages


def test_once_torch_is_imported_no_process_is_started(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        background_scan.multiprocessing, "get_context", lambda _: pytest.fail("forked beside torch's threads")
    )
    assert "torch" in sys.modules
    assert len(BackgroundScan([str(pictures)]).find()) == 6
