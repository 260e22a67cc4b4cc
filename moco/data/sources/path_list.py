"""List files: one path per line, and optionally a label after it."""

import csv
import io
import os
from codecs import BOM_UTF8 as BOM
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moco.data.decode.decode import EXTENSIONS
from moco.data.sources.images import DataError, LabelCodes
from moco.data.sources.names import Names, pack_names
from moco.text import escape, message_of

SHOWN = 100  # characters of a first line
FIRST = 2**16  # [bytes] in which a first line is looked for, and a first URL
FIRST_NOT_ASCII = 0x80  # a line may begin with a blank beyond ASCII
LIST_SUFFIXES = (".txt", ".lst", ".tsv", ".csv")
_HEADERS = {"path", "paths", "file", "filename", "file_name", "image", "name"}  # first cells that name no file


EXPECTED = (
    "Expected a path a line, or a path and a label with a tab between them (in .csv files a comma; in .txt and .lst "
    "files either)"
)


class Listed(NamedTuple):
    """The images that a list file names."""

    names: Names
    labels: LabelCodes  # no labels where the list has no second column


def read_list(source: str) -> Listed:
    """The images that the file `source` lists, in its order.

    Columns are separated by a tab; in .csv files by a comma, with quotes where they are needed. In .txt and .lst files
    a comma separates as well, where the ending of an image stands before it. Empty lines are skipped, and so is a
    header line in .csv and .tsv files. Blanks before and after a label are not part of it.

    Raises:
        DataError: a file that cannot be read or is no UTF-8 text, a line with more than two columns, or labels for some
            images only.
    """
    return parse_list(source, _read_content(source))


def parse_list(source: str, content: bytes) -> Listed:
    """As `read_list`, of the `content` of the list `source`."""
    _check_text(source, content)
    if (names := _plain_lines(source, content)) is not None:
        return Listed(names, LabelCodes.none(len(names)))
    try:
        return _with_columns(source, content)
    except csv.Error as error:
        raise DataError(
            f"{escape(source)} cannot be read as a list of paths: {error}. {_first_line(content)}"
        ) from error


def _plain_lines(source: str, content: bytes) -> Names | None:
    """The lines of a list of paths alone, found without a string for each; None where lines must be taken apart."""
    if not source.lower().endswith((".txt", ".lst")) or any(one in content for one in (b"\t", b",", b"\r", BOM)):
        return None
    text = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if len(text) and text[-1] != ord("\n"):
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    first = text[np.minimum(starts, max(len(text) - 1, 0))] if len(ends) else text
    if ((ends == starts) | (first <= ord(" ")) | (first >= FIRST_NOT_ASCII)).any():  # perhaps empty, or of blanks
        return None
    return Names(text[text != ord("\n")], ends - np.arange(len(ends)))


def _with_columns(source: str, content: bytes) -> Listed:
    """The rows of a list whose lines have to be taken apart. Raises DataError and csv.Error."""
    labels, width = LabelCodes(), 0

    def paths() -> Iterator[str]:
        nonlocal width
        for place, (number, cells) in enumerate(_rows(source, content)):
            width = width if place else len(cells)
            if len(cells) != width or width > 2 or not all(cell.strip() for cell in cells):
                wrong = f"line {number} of {escape(source)} has {len([cell for cell in cells if cell.strip()])} columns"
                raise DataError(f"{wrong}. {EXPECTED}, and a label for every image or for none. {_first_line(content)}")
            labels.add(cells[1].strip() if width == 2 else None)
            yield cells[0].replace(os.sep, "/")

    return Listed(pack_names(paths()), labels)


def _rows(source: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) for each line that names an image."""
    has_header, first = source.lower().endswith((".csv", ".tsv")), True
    for number, cells in _parse_rows(source, content):
        if not any(cell.strip() for cell in cells):
            continue
        if not (first and has_header and cells[0].strip().lower() in _HEADERS):
            yield number, cells
        first = False


def lists_urls(source: str | Path) -> bool:
    """Whether `source` is a list file of URLs."""
    if not (str(source).lower().endswith(LIST_SUFFIXES) and os.path.isfile(source)):
        return False
    try:
        with open(source, "rb") as file:
            return b"://" in file.read(FIRST)
    except OSError:
        return False


def what_was_expected(source: str) -> str:
    """For a message about missing files: the format of a list, and the first line of this one."""
    return describe_expected_content(_read_content(source))


def describe_expected_content(content: bytes) -> str:
    """As `what_was_expected`, of the content of a list."""
    return f"{EXPECTED}. {_first_line(content)}"


def _read_content(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{escape(source)} cannot be read as a list of paths: {message_of(error)}") from error


def _check_text(source: str, content: bytes) -> None:
    """Raise DataError for a list that is UTF-16."""
    if b"\0" in content:
        raise DataError(
            f"{escape(source)} is not UTF-8 text: it has zero bytes, as UTF-16 has (Excel's 'Unicode text', "
            f"PowerShell's '>'). Save it as UTF-8. {_first_line(content)}"
        )


def _first_line(content: bytes) -> str:
    line = next(iter(content[:FIRST].decode("utf-8-sig", "surrogateescape").splitlines()), "")
    start, more = line[:SHOWN], " ..." if len(line) > SHOWN else ""
    return "Its first line is " + (f"'{start}'" if start.isprintable() else ascii(start)) + more


def _parse_rows(source: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) for each line of the list."""
    is_csv = source.lower().endswith(".csv")
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "surrogateescape", newline="" if is_csv else "\n")
    if is_csv:
        reader = csv.reader(lines, strict=True)
        for cells in reader:
            yield reader.line_num, cells
        return
    commas = source.lower().endswith((".txt", ".lst"))
    for number, whole in enumerate(lines, start=1):
        line = whole[:-2] if whole.endswith("\r\n") else whole.removesuffix("\n")
        cells = line.split("\t")
        path, comma, label = line.rpartition(",")
        if commas and len(cells) == 1 and comma and path.lower().endswith(EXTENSIONS) and label:
            cells = [path, label]
        yield number, cells
