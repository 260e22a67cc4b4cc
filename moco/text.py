"""Text of messages: names that are safe to print, counts with their unit, durations."""

from collections.abc import Sequence


def shown(name: str) -> str:
    """`name` as it is, or in quotes and escaped when a character of it does not print."""
    return name if name.isprintable() else ascii(name)


def one_line(text: str) -> str:
    """`text` with every character that does not print escaped, line ends too."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def printable(text: str) -> str:
    """Lines of text with every other character that does not print escaped."""
    return "\n".join(map(one_line, text.split("\n")))


def plural(count: int, unit: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, safe to print, and how many more there are: `a, b, c and 1,204 more`."""
    return ", ".join(map(shown, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    seconds = round(seconds)
    for size, unit, smaller, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {rest}"
    return f"{seconds} s"


def guard_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula: an apostrophe before =, +, -, @, blanks and another."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else text
