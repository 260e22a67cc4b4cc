"""What does not print is escaped, and what prints stays as it is."""

import pytest

from moco.text import one_line, printable, shown

ACTING = ["\x1b[2J", "\x9b31m", "\u202egnp", "a\rb", "a\tb", "\udcff", "\x00", "\u2028"]


@pytest.mark.parametrize("text", ACTING)
def test_what_acts_on_a_terminal_is_escaped(text: str):
    for escaped in (shown(text), one_line(text), printable(text)):
        assert escaped.isprintable()
        escaped.encode()


@pytest.mark.parametrize("text", ["Käse 1.jpg", "猫.png", "a 'b' \"c\" \\n", "👍.png", ""])
def test_what_prints_stays_as_it_is(text: str):
    assert shown(text) == one_line(text) == printable(text) == text


def test_a_line_end_is_kept_in_lines_and_escaped_in_one_line():
    assert printable("a\nb") == "a\nb"
    assert one_line("a\nb") == r"a\nb"
