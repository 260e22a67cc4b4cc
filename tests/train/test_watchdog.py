"""The watchdog's clock: time in which the process was suspended is not time in which the run stood still."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.train import watchdog
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.watchdog import Watchdog

SUSPENDED = 5000.0  # [s]


class Ended(Exception):
    pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the time: `clock.now` [s]."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: clock.now))
    later = {"dump_traceback_later": lambda *_, **__: None, "cancel_dump_traceback_later": lambda: None}
    monkeypatch.setattr(watchdog, "faulthandler", SimpleNamespace(**later))
    return clock


def ended_after(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, events: dict[int, str]) -> float:
    """When a watchdog of a minute's patience ends the run [s]; `events` happen at its n-th look."""
    dog, looks = Watchdog(1.0), [0]
    dog.section("step")
    start = clock.now

    def end(*_: object) -> None:
        raise Ended

    def wait(seconds: float) -> bool:
        looks[0] += 1
        clock.now += seconds
        for event in events.get(looks[0], "").split():
            if event == "suspended":
                clock.now += SUSPENDED
            else:
                dog.section("step")
        return False

    monkeypatch.setattr(dog, "_end", end)
    monkeypatch.setattr(dog, "closed", SimpleNamespace(wait=wait))
    with pytest.raises(Ended):
        dog.watch()
    return clock.now - start


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({}, 60),
        ({5: "suspended"}, 60 + SUSPENDED),
        ({5: "suspended", 9: "suspended"}, 60 + 2 * SUSPENDED),
        ({10: "step suspended"}, 30 + 60 + SUSPENDED),  # a look is every 3 s
        ({10: "suspended step"}, 30 + SUSPENDED + 60),
        ({5: "suspended", 10: "step"}, 30 + SUSPENDED + 60),
    ],
)
def test_only_time_in_which_the_process_runs_counts_for_patience(clock, monkeypatch, events, expected):
    assert ended_after(clock, monkeypatch, events) == pytest.approx(expected, abs=0.1)


RUN = """
import hashlib
from moco.train.watchdog import watchdog
with watchdog(2 / 60) as dog:
    for step in range(10):
        dog.section("step")
        print(step, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"work", b"without the GIL", 400_000)
"""


def test_a_run_that_was_suspended_for_longer_than_its_patience_continues():
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"0\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(4)
        os.kill(child.pid, signal.SIGCONT)
        out, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert out.endswith(b"9\n")


class Threads(Silent):
    """Notes whether a watchdog is at work while the plan is shown."""

    def __init__(self) -> None:
        self.watched: list[bool] = []

    def box(self, title: str, rows: object) -> None:
        if title == "plan":
            self.watched.append("moco-watchdog" in {thread.name for thread in threading.enumerate()})


def test_in_python_there_is_no_watchdog_by_default(pictures, tiny, tmp_path):
    """A breakpoint in a notebook may take an hour."""
    seen = Threads()
    pretrain(pictures, tmp_path / "run", recipe=tiny, dry_run=True, reporter=seen)
    pretrain(pictures, tmp_path / "run", recipe=tiny, dry_run=True, reporter=seen, patience=30)
    assert seen.watched == [False, True]


def test_the_command_has_a_patience_of_30_minutes_by_default(pictures, tmp_path, monkeypatch):
    given: list[float | None] = []
    monkeypatch.setattr("moco.train.watchdog.Watchdog.__init__", lambda _, minutes: (given.append(minutes), 1 / 0))
    result = CliRunner().invoke(app, ["pretrain", str(pictures), "--out", str(tmp_path / "run"), "--dry-run"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert given == [30]
