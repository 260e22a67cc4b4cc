"""What a run shows is text, on a terminal, off it and in its log."""

import os
import sys
import warnings
from contextlib import suppress

import pytest

from moco.cli.streams import beside
from moco.train.console import Console, fit_parts, wrap_line
from moco.train.reporters import Logged

ACTING = "\x1b[2J[bold red]x\rfake\u202e"


def test_names_in_a_box_on_a_terminal_are_escaped(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # no colours of ours
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        Console(terminal).box("plan", [("out", ACTING)])
        terminal.flush()
        shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert r"\x1b[2J[bold red]x\rfake\u202e" in shown
    assert "\x1b" not in shown


def test_lines_off_a_terminal_and_in_the_log_are_escaped(tmp_path):
    with open(tmp_path / "shown", "w") as shown:
        logged = Logged(Console(shown, every=0), tmp_path / "train.log")
        logged.box("plan", [("out", ACTING)])
        logged.say(ACTING)
        logged.live(ACTING)
    for text in ((tmp_path / "shown").read_text(), (tmp_path / "train.log").read_text()):
        assert len(text.splitlines()) >= 3
        assert all(line.isprintable() for line in text.split("\n"))


def test_a_line_end_in_a_message_starts_no_new_line_in_the_log(tmp_path):
    with open(tmp_path / "shown", "w") as shown:
        Logged(Console(shown), tmp_path / "train.log").say("x\n2026-01-01T00:00:00+00:00 all is well")
    assert len((tmp_path / "train.log").read_text().splitlines()) == 1


PARTS = ["ETA 13 min 5 s", "epoch 12.3/200", "loss 6.32", "(chance 8.32)", "kNN 61.2 %", "pretext 45 %", "1,200 img/s",
         "data wait 3 %", "step 12,345"]  # fmt: skip


def shown_on_a_terminal(monkeypatch, columns: int, show) -> str:
    """What `show(console)` writes to a terminal of so many columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        show(Console())
    chunks: list[bytes] = []
    with suppress(OSError):  # EIO: all is read
        while chunk := os.read(ours, 10_000):
            chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_a_narrow_terminal_shows_the_first_parts_of_the_live_line_uncut(monkeypatch, columns):
    text = shown_on_a_terminal(monkeypatch, columns, lambda console: console.live(*PARTS))
    shown = text.strip("\r").split("  ")
    assert len(text.strip("\r")) < columns
    assert shown == PARTS[: len(shown)]
    assert "loss 6.32" in shown


def test_a_part_that_is_longer_than_the_line_is_cut():
    assert fit_parts(["a very long first part", "b"], 10) == "a very lon"
    assert fit_parts([], 10) == ""


@pytest.mark.parametrize(
    "speak",
    [
        lambda: print("a message", file=sys.stderr),
        lambda: sys.stderr.write("a message\n"),
        lambda: warnings.warn("a message", stacklevel=1),
    ],
)
@pytest.mark.filterwarnings("always")
def test_other_output_on_stderr_starts_on_a_new_line(monkeypatch, speak):
    def show(console: Console) -> None:
        with beside(console):
            console.live("ETA 5 s")
            speak()
            console.say("an end")

    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: print(message, file=sys.stderr))
    assert shown_on_a_terminal(monkeypatch, 80, show).split("\n") == ["\rETA 5 s", "a message", "an end", ""]


def test_the_live_line_ends_when_the_command_ends(monkeypatch):
    def show(console: Console) -> None:
        with beside(console):
            console.live("ETA 5 s")
        print("$ ", file=sys.stderr, end="")

    assert shown_on_a_terminal(monkeypatch, 80, show) == "\rETA 5 s\n$ "


def test_a_long_message_is_wrapped_between_words_and_is_complete():
    text = "the queue starts with random keys " * 9 + "/a/path/" + "x" * 100
    lines = wrap_line(text, 80)
    assert " ".join(lines) == text
    assert all(len(line) <= 80 for line in lines[:-1])


def test_a_message_on_a_terminal_is_wrapped_between_words(monkeypatch):
    text = "keys of images have replaced them " * 9
    seen = shown_on_a_terminal(monkeypatch, 40, lambda console: console.say(text))
    assert seen.split() == text.split()
    assert max(map(len, seen.splitlines())) <= 40
