"""What a run shows is text, on a terminal, off it and in its log."""

import os

from moco.train.console import Console, Logged

ACTING = "\x1b[2J[bold red]x\rfake\u202e"


def test_a_box_on_a_terminal_shows_names_escaped_and_without_markup(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # no colours of ours
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        Console(terminal).box("plan", [("out", ACTING)])
        terminal.flush()
        shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert r"\x1b[2J[bold red]x\rfake\u202e" in shown
    assert "\x1b" not in shown


def test_lines_are_shown_escaped_off_a_terminal_and_in_the_log(tmp_path):
    with open(tmp_path / "shown", "w") as shown:
        logged = Logged(Console(shown, every=0), tmp_path / "train.log")
        logged.box("plan", [("out", ACTING)])
        logged.say(ACTING)
        logged.live(ACTING)
    for text in ((tmp_path / "shown").read_text(), (tmp_path / "train.log").read_text()):
        assert len(text.splitlines()) >= 3
        assert all(line.isprintable() for line in text.split("\n"))


def test_a_line_end_in_a_message_makes_no_line_of_the_log(tmp_path):
    with open(tmp_path / "shown", "w") as shown:
        Logged(Console(shown), tmp_path / "train.log").say("x\n2026-01-01T00:00:00+00:00 all is well")
    assert len((tmp_path / "train.log").read_text().splitlines()) == 1
