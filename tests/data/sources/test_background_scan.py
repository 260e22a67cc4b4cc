"""A process of its own looks through the folders: it finds what this one would, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from making import make_pictures

from moco.data.sources import background_scan
from moco.data.sources.background_scan import Ahead
from moco.data.sources.folder import DataError, find_images

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork that can be relied on")


def alone(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What a new interpreter, without torch, does with `code`."""
    start = "import multiprocessing, os, signal, sys\nfrom moco.data.sources.background_scan import Ahead\n"
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


def test_looking_through_folders_needs_no_torch():
    done = alone("import moco.data.sources.folder; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


@linux
def test_it_finds_what_find_images_finds(pictures: Path):
    done = alone(
        "begun = Ahead(sys.argv[1:])\nassert multiprocessing.active_children()\n"
        "from moco.data.sources.folder import find_images\nfrom numpy.testing import assert_equal\n"
        "found, expected = begun.find(), find_images(sys.argv[1:])\n"
        "assert_equal(vars(found), vars(expected))\nassert_equal(found.read(4), expected.read(4))\n"
        "assert not multiprocessing.active_children()\nprint(found.classes, found.skipped)", pictures,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("['cats', 'dogs'] 1 x .txt file", "")


@linux
def test_an_error_comes_across(tmp_path: Path):
    with pytest.raises(DataError) as expected:
        find_images(tmp_path)
    done = alone(
        "begun = Ahead(sys.argv[1:])\nassert multiprocessing.active_children()\n"
        "try: begun.find()\nexcept ValueError as error: print(type(error).__name__, error)", tmp_path,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (f"DataError {expected.value}", "")


@linux
@pytest.mark.parametrize("sending", [False, True])
def test_a_process_that_is_killed_is_not_needed(many: Path, sending: bool):
    wait = "begun._begun[1].poll(30)" if sending else ""
    done = alone(
        f"begun = Ahead(sys.argv[1:])\n{wait}\nos.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
        "print(len(begun.find().names), multiprocessing.active_children())", many,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("10000 []", "")


@linux
def test_without_another_process_it_searches_by_itself(pictures: Path):
    done = alone(
        "def refuse(): raise BlockingIOError(11, 'Resource temporarily unavailable')\nos.fork = refuse\n"
        "begun = Ahead(sys.argv[1:])\nassert not multiprocessing.active_children()\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\nprint(len(begun.find().names))", pictures,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("6", "")


@linux
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit"])
def test_when_nobody_waits_it_ends_without_a_word(many: Path, end: str):
    done = alone(f"Ahead(sys.argv[1:])\nprint(multiprocessing.active_children()[0].pid, flush=True)\n{end}", many)
    assert done.stderr == ""
    assert ended(int(done.stdout))


def ended(process: int) -> bool:
    """Whether it ends within half a minute; what has ended may be there until somebody looks."""
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
def test_a_folder_that_hangs_does_not_keep_it_after_the_command(tmp_path: Path):
    os.mkfifo(tmp_path / "slow.txt")
    done = alone(
        "Ahead(sys.argv[1:])\nprint(multiprocessing.active_children()[0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "slow.txt",
    )  # fmt: skip
    assert ended(int(done.stdout))


@linux
def test_a_signal_to_all_of_the_command_is_answered_once(tmp_path: Path):
    """As from a terminal. The process is held up by a folder that is slow: a FIFO for a list of images."""
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
    _, said = command.communicate(timeout=60)
    assert (command.returncode, said.count("stopped by SIGINT"), said.count("\n")) == (75, 1, 1), said


def test_beside_torch_no_process_is_begun(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        background_scan.multiprocessing, "get_context", lambda _: pytest.fail("forked beside torch's threads")
    )
    assert "torch" in sys.modules
    assert len(Ahead([str(pictures)]).find()) == 6
