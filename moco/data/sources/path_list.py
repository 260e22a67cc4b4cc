"""List files: one path per line, and optionally a label after it."""

import csv
import io
import os
from collections.abc import Iterator

from moco.data.decode.decode import EXTENSIONS
from moco.data.sources.images import DataError
from moco.text import message_of, shown

SHOWN = 100  # characters of a first line
LIST_SUFFIXES = (".txt", ".lst", ".tsv", ".csv")
_HEADERS = {"path", "paths", "file", "filename", "file_name", "image", "name"}  # first cells that name no file


EXPECTED = (
    "Expected a path a line, or a path and a label with a tab between them (in .csv files a comma; in .txt and .lst "
    "files either)"
)


def read_list(source: str) -> list[tuple[str, str | None]]:
    """(path, label) of each image that the file `source` lists; every label is None when there is no second column.

    Columns are separated by a tab; in .csv files by a comma, with quotes where they are needed. In .txt and .lst files
    a comma separates as well, where the ending of an image stands before it. Empty lines are skipped, and so is a
    header line in .csv and .tsv files. Blanks before and after a label are not part of it.

    Raises:
        DataError: a file that cannot be read or is no UTF-8 text, a line with more than two columns, or labels for some
            images only.
    """
    text = _read_text(source)
    try:
        rows = [(number, cells) for number, cells in _parse_rows(source, text) if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{shown(source)} cannot be read as a list of paths: {error}. {_first_line(text)}") from error
    if rows and source.lower().endswith((".csv", ".tsv")) and rows[0][1][0].strip().lower() in _HEADERS:
        del rows[0]
    width = max((len(cells) for _, cells in rows), default=1)
    for number, cells in rows:
        if len(cells) != width or width > 2 or not all(cell.strip() for cell in cells):
            raise DataError(
                f"line {number} of {shown(source)} has {len([cell for cell in cells if cell.strip()])} columns. "
                f"{EXPECTED}, and a label for every image or for none. {_first_line(text)}"
            )
    return [(cells[0].replace(os.sep, "/"), cells[1].strip() if width == 2 else None) for _, cells in rows]


def what_was_expected(source: str) -> str:
    """For a message about missing files: the format of a list, and the first line of this one."""
    return f"{EXPECTED}. {_first_line(_read_text(source))}"


def _read_text(source: str) -> str:
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{shown(source)} cannot be read as a list of paths: {message_of(error)}") from error
    if "\0" in text:
        raise DataError(
            f"{shown(source)} is not UTF-8 text: it has zero bytes, as UTF-16 has (Excel's 'Unicode text', "
            f"PowerShell's '>'). Save it as UTF-8. {_first_line(text)}"
        )
    return text


def _first_line(text: str) -> str:
    line = next(iter(text.splitlines()), "")
    start, more = line[:SHOWN], " ..." if len(line) > SHOWN else ""
    return "Its first line is " + (f"'{start}'" if start.isprintable() else ascii(start)) + more


def _parse_rows(source: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) for each line of the list."""
    if source.lower().endswith(".csv"):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for cells in reader:
            yield reader.line_num, cells
        return
    commas = source.lower().endswith((".txt", ".lst"))
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        cells = line.split("\t")
        path, comma, label = line.rpartition(",")
        if commas and len(cells) == 1 and comma and path.lower().endswith(EXTENSIONS) and label:
            cells = [path, label]
        yield number, cells
