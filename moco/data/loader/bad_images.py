"""Bad images: they are skipped and listed by name. Too many of them stop the run."""

import csv
import io
import threading
from contextlib import suppress
from pathlib import Path

from moco.data.sources.images import DataError
from moco.files import append, write_atomically
from moco.text import escape, guard_cell

AT_LEAST, SHARE = 10, 0.001  # bad images tolerated by default: the larger of the two


class Quarantine:
    """The bad images of a run, each once, with the reason. Any number of threads may add to it.

    Args:
        file: they are written there as they are found (columns name, reason), and read back when a run resumes.
        max_bad: how many are tolerated: a number of images, or a share of them when it is below 1;
            None means 0.1 %, but at least 10.
        total: number of images.
    """

    def __init__(self, file: Path | None, max_bad: float | None, total: int):
        if max_bad is not None and not max_bad >= 0:
            raise DataError(f"max_bad must be a number of images, or a share of them below 1, got {max_bad}")
        if max_bad is None:
            self.limit = max(AT_LEAST, int(SHARE * total))
        else:
            self.limit = int(max_bad * total if 0 < max_bad < 1 else max_bad)
        self.file, self.total = file, total
        self.bad = _read_rows(file) if file is not None and file.exists() else {}  # name -> reason
        self._lock = threading.Lock()
        self._unwritten: list[str] = []  # names

    def __len__(self) -> int:
        return len(self.bad)

    def add(self, name: str, reason: str) -> None:
        """Add the image `name` to the list. Raises DataError when more are bad than are tolerated."""
        with self._lock:
            if name not in self.bad:
                self.bad[name] = _printable_line(reason)
                self._write(name)
            if len(self.bad) > self.limit:
                raise DataError(self._too_many())

    def _write(self, name: str) -> None:
        """Append its row. A row that cannot be written now (a full disk, say) is written with the next one."""
        self._unwritten.append(name)
        if self.file is not None:
            with suppress(OSError):
                _append(self.file, {each: self.bad[each] for each in self._unwritten})
                self._unwritten.clear()

    def _too_many(self) -> str:
        some = "; ".join(f"{escape(name)}: {reason}" for name, reason in list(self.bad.items())[:3])
        where = "" if self.file is None else f" (all in {escape(str(self.file))})"
        return (
            f"{len(self.bad):,} of {self.total:,} images are bad, more than the {self.limit:,} allowed: {some}{where}. "
            "Repair or remove them, or allow more with --max-bad NUMBER or --max-bad SHARE"
        )


def _printable_line(reason: str) -> str:
    """One printable line of at most 200 characters."""
    line = " ".join(reason.split())[:200]
    return "".join(character if character.isprintable() else "?" for character in line)


def _unguarded(cell: str) -> str:
    """The text from which `guard_cell` made `cell`."""
    return cell.removeprefix("'")


def _row(*cells: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


HEADER = _row("name", "reason")


def _append(file: Path, rows: dict[str, str]) -> None:
    """Append rows in one write: a killed run leaves whole rows, or one incomplete row at the end."""
    start = b"" if file.exists() and file.stat().st_size else HEADER
    append(file, start + b"".join(_row(guard_cell(name), guard_cell(reason)) for name, reason in rows.items()))


def _read_rows(file: Path) -> dict[str, str]:
    """The rows of `file`. An incomplete one at its end is removed."""
    data = file.read_bytes()
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")) if row]
    incomplete = bool(rows) and not (data.endswith(b"\n") and len(rows[-1]) > 1)
    whole = rows[: len(rows) - incomplete]
    written = b"".join(_row(*row) for row in whole)
    is_note = incomplete and data.startswith(written) and not data.removeprefix(written).startswith(b'"')
    ours = whole[0] == ["name", "reason"] if whole else HEADER.startswith(data)
    if not ours or is_note or any(len(row) != 2 for row in whole):
        raise DataError(f"{escape(str(file))} is not a list of bad images (columns name, reason): move it away")
    if incomplete:
        write_atomically(file, lambda out: out.write(b"".join(_row(*row) for row in whole)))
    return {_unguarded(name): _unguarded(reason) for name, reason in whole[1:]}
