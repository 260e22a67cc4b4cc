"""What does not print is escaped, and what prints stays as it is."""

import errno

import pytest

from moco.text import escape, first_few, message_of, one_line, plural, printable

ACTING = ["\x1b[2J", "\x9b31m", "\u202egnp", "a\rb", "a\tb", "\udcff", "\x00", "\u2028"]


@pytest.mark.parametrize("text", ACTING)
def test_control_characters_are_escaped(text: str):
    for escaped in (escape(text), one_line(text), printable(text)):
        assert escaped.isprintable()
        escaped.encode()


@pytest.mark.parametrize("text", ["Käse 1.jpg", "猫.png", "a 'b' \"c\" \\n", "👍.png", ""])
def test_printable_text_is_not_escaped(text: str):
    assert escape(text) == one_line(text) == printable(text) == text


def test_a_newline_is_escaped_only_where_one_line_is_expected():
    assert printable("a\nb") == "a\nb"
    assert one_line("a\nb") == r"a\nb"


def test_a_unit_is_in_the_plural_unless_there_is_exactly_one():
    assert [plural(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]
    assert [plural(count, "step") for count in (0, 1, 2, 2000)] == ["0 steps", "1 step", "2 steps", "2,000 steps"]


def test_the_first_names_are_listed_and_the_others_counted():
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b\x1b", "c", "d"]) == r"a, 'b\x1b', c and 1 more"


def test_an_error_of_the_system_is_a_path_a_reason_and_advice_without_a_number():
    error = OSError(errno.ENOSPC, "No space left on device", "/runs/a\n.pt")
    assert (
        message_of(error) == r"'/runs/a\n.pt': No space left on device (make room on the disk, or give another place)"
    )
    assert message_of(OSError(errno.EPIPE, "Broken pipe")) == "Broken pipe"
    assert message_of(OSError("of our own")) == message_of(ValueError("of our own")) == "of our own"
