"""Text of messages: names that are safe to print, counts with their unit, durations."""

import errno
import itertools
import textwrap
from collections.abc import Sequence

TEXT_WIDTH = 80  # [characters] of a line
ADVICE = {  # what to do about an OSError, by its errno
    errno.EACCES: "check its owner and its mode, or give another place",
    errno.EPERM: "check its owner and its mode, or give another place",
    errno.EROFS: "the file system is read-only: give another place",
    errno.ENOSPC: "make room on the disk, or give another place",
    errno.EDQUOT: "your quota is used up: make room, or give another place",
    errno.EIO: "the disk or the network failed: try again, or give another place",
    errno.ESTALE: "the network drive has changed: mount it again",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: check the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), or use fewer --workers",
    errno.ELOOP: "it is a link, or links lead in a circle: give the path itself",
}


def escape(name: str) -> str:
    """`name` unchanged, or quoted and escaped if it has characters that are not printable."""
    return name if name.isprintable() else ascii(name)


def one_line(text: str) -> str:
    """`text` with every character that is not printable escaped, line ends included."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def printable(text: str) -> str:
    """As `one_line`, but line ends stay."""
    return "\n".join(map(one_line, text.split("\n")))


def plural(count: int, unit: str) -> str:
    """`1 step`, `2,000 steps`; `2 classes`."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}{'es' if unit.endswith('s') else 's'}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, safe to print, and how many more there are: `a, b, c and 1,204 more`."""
    return ", ".join(map(escape, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    seconds = round(seconds)
    for size, unit, smaller, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {rest}"
    return f"{seconds} s"


def guard_cell(text: str) -> str:
    """`text` as a cell of a CSV file that no spreadsheet takes for a formula: a leading apostrophe where needed."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else text


def message_of(error: BaseException) -> str:
    """The message of `error`; for an OSError the path, what happened and what to do, without the errno."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    paths = [escape(str(name)) for name in (error.filename, error.filename2) if name is not None]
    advice = ADVICE.get(error.errno or 0, "")
    where = f"{' to '.join(paths)}: " if paths else ""
    return where + error.strerror + (f" ({advice})" if advice else "")


def extra(name: str) -> str:
    """The command that installs the optional packages (extra) `name`."""
    return f'pip install ".[{name}]", in the folder of the source code of momentum-contrast'


def columns(rows: list[tuple[str, ...]], *, widest: tuple[int, int] = (24, 24)) -> str:
    """A table of WIDTH characters. Cells of the first columns that are longer than `widest` are wrapped."""
    last = len(rows[0]) - 1
    widths = [min(widest[i], max(len(row[i]) for row in rows)) for i in range(last)]
    widths.append(TEXT_WIDTH - sum(widths) - 2 * (last + 1))
    lines: list[str] = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append(f"  {line}".rstrip())
    return "\n".join(lines)
