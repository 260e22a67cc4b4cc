"""How far a long computation is."""

import time

from moco.evaluate.progress import Progress


def test_short_stages_are_not_shown():
    lines: list[str] = []
    with Progress(lines.append) as progress:
        progress.stage("features", 10)
        progress.add(10)
    assert (lines, progress.reported) == ([], False)


def test_a_long_stage_is_shown_with_the_time_left():
    lines: list[str] = []
    with Progress(lines.append, delay=0.05) as progress:
        progress.stage("features", 2000)
        progress.add(500)
        time.sleep(0.1)
    assert progress.reported
    assert lines[0].startswith("features: 500 of 2,000 images, ")
    assert lines[0].endswith(" left")


def test_the_time_that_is_left_is_that_of_the_units_so_far(monkeypatch):
    progress = Progress()
    progress.stage("features", 2000)
    progress.add(500)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert progress.line() == "features: 500 of 2,000 images, 5 min 0 s left"


def test_a_stage_of_unknown_length_shows_the_time_taken(monkeypatch):
    progress = Progress()
    progress.stage("loading weights")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 7)
    assert progress.line() == "loading weights, 7 s"
