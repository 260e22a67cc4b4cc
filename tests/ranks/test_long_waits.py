"""Ranks wait for rank 0 for longer than the timeout of collective operations."""

import os
import signal
import time
from datetime import timedelta

import torch
from run_ranks import Ranks

from moco import distributed
from moco.distributed import RankError, main_works, on_main, session

SHORT = timedelta(seconds=0.5)


def on_two(of_rank_0, monkeypatch) -> list[int]:
    """The exit codes of two ranks, of which rank 0 works alone."""
    monkeypatch.setattr(distributed, "TIMEOUT", SHORT)

    def work(_: int) -> None:
        try:
            with session(torch.device("cpu")), main_works():
                if on_main():
                    of_rank_0()
        except RankError:
            raise SystemExit(9) from None

    return Ranks(work, 2).wait(60)


def test_rank_0_may_work_for_longer_than_the_timeout(monkeypatch):
    assert on_two(lambda: time.sleep(3 * SHORT.total_seconds()), monkeypatch) == [0, 0]


def test_a_rank_0_that_is_killed_meanwhile_ends_the_others_at_once(monkeypatch):
    start = time.monotonic()
    assert on_two(lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch) == [-signal.SIGKILL, 9]
    assert time.monotonic() - start < 20
