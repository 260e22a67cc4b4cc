"""`TableImages`: images in a column of Parquet files, or of a data set that Hugging Face `datasets` saved on the disk.

They are read by pyarrow (the extra `data`); nothing is copied. A saved data set is mapped into memory, where any image
can be reached. Of Parquet files whole row groups are unpacked, of which some stay in memory.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moco.data.decode.decode import EXTENSIONS, MAX_FILE_BYTES
from moco.data.sources.encoded import MOST_RATIO, MOST_UNPACKED, EncodedImages
from moco.data.sources.folder import TABLE_SUFFIX
from moco.data.sources.images import LABEL_NAMES, DataError, LabelCodes
from moco.data.sources.names import pack_names
from moco.files import read_json
from moco.text import escape, extra, first_few, message_of, printable

STATE, SPLITS = "state.json", "dataset_dict.json"
MEMORY = 2**30  # [bytes] of unpacked row groups that stay in memory


class Column(NamedTuple):
    """Where images and labels are in a table."""

    image: str  # a struct of bytes and path, as `datasets` stores images
    label: str | None
    classes: list[str] | None  # names of the labels, if the table has them


class TableImages(EncodedImages):
    """The images of `files`, in the order of their rows. Threads may share them.

    A name is the number of the row, with the ending of the image's path if there is one.

    Args:
        memory: [bytes] of unpacked row groups of Parquet files to keep.

    Raises:
        DataError: a file that cannot be read, or without a column of images; pyarrow is not installed.
    """

    def __init__(self, files: Sequence[Path], *, memory: int = MEMORY):
        self.files, self.memory = tuple(files), memory
        self._open()
        self.column = _column_of(self._tables[0].schema, self.files[0])
        names, labels, counts = list[str](), LabelCodes(), list[int]()
        for table, path in zip(self._tables, self.files, strict=True):
            for group in range(table.groups):
                with _table_errors(path):
                    paths, given = table.facts(group, self.column)
                names += [f"{len(names) + row:09d}{_ending(path)}" for row, path in enumerate(paths)]
                for one in given:
                    labels.add(_label(one, self.column))
                counts.append(len(paths))
        if not names:
            raise DataError(f"{escape(str(self.files[0]))} has no rows: expected images")
        labelling = labels.labelling()
        self._names, self._ends = pack_names(names), np.cumsum(counts)
        self.labels = labelling.numbers if labelling.whole else None
        self.classes: Sequence[str] = labelling.names if labelling.whole else []
        self.sizes = self.mtimes = np.zeros(len(names), dtype=np.int64)

    def _open(self) -> None:
        self._lock, self._kept = threading.Lock(), OrderedDict[int, Any]()
        self._tables = [_open_table(path) for path in self.files]
        self._groups = [(table, group) for table in self._tables for group in range(table.groups)]

    def __getstate__(self) -> dict[str, Any]:
        closed = ("_lock", "_kept", "_tables", "_groups")
        return {name: value for name, value in vars(self).items() if name not in closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def read_bytes(self, index: int) -> bytes:
        number = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[number - 1]) if number else 0)
        content = (self._images_of(number)[row].as_py() or {}).get("bytes")
        if content is None:
            raise ValueError("the table has the path of a file, not its bytes: store these (save_to_disk does)")
        if not 0 < len(content) <= MAX_FILE_BYTES:
            raise ValueError(f"{len(content)} bytes: expected 1 to {MAX_FILE_BYTES}")
        return content

    def _images_of(self, number: int) -> Any:
        """The images of a group of rows, from memory if they are there."""
        table, group = self._groups[number]
        if table.is_mapped:
            return table.images(group, self.column.image)
        with self._lock:  # one thread unpacks a row group, others wait for it
            found = self._kept.pop(number, None)
            if found is None:
                found = table.images(group, self.column.image)
            self._kept[number] = found  # as the last one used
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self.memory:
                self._kept.popitem(last=False)
            return found


class _Parquet:
    """A Parquet file, by its row groups."""

    is_mapped = False

    def __init__(self, path: Path):
        from pyarrow import parquet

        self.file = parquet.ParquetFile(path)
        self.schema, self.groups = self.file.schema_arrow, self.file.num_row_groups

    def facts(self, group: int, column: Column) -> tuple[list[str | None], list[Any]]:
        """The path and the label of each row; the images themselves are not read."""
        wanted = [f"{column.image}.path", *([column.label] if column.label else [])]
        rows = self.file.read_row_group(group, columns=wanted, use_threads=False)
        return _facts(rows, column)

    def images(self, group: int, name: str) -> Any:
        facts = self.file.metadata.row_group(group)
        stored = sum(facts.column(number).total_compressed_size for number in range(facts.num_columns))
        if facts.total_byte_size > max(MOST_UNPACKED, MOST_RATIO * stored):
            raise ValueError(f"its row group unpacks to {facts.total_byte_size:,} bytes, more than images do")
        # without threads of its own: this may be a forked process
        return self.file.read_row_group(group, columns=[name], use_threads=False).column(0).combine_chunks()


class _Mapped:
    """An Arrow file of `datasets`, by its record batches, which are mapped into memory."""

    is_mapped = True

    def __init__(self, path: Path):
        import pyarrow

        with pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))) as reader:
            self.schema, self.batches = reader.schema, list(reader)
        self.groups = len(self.batches)

    def facts(self, group: int, column: Column) -> tuple[list[str | None], list[Any]]:
        """The path and the label of each row."""
        return _facts(self.batches[group], column)

    def images(self, group: int, name: str) -> Any:
        return self.batches[group].column(name)


def _facts(rows: Any, column: Column) -> tuple[list[str | None], list[Any]]:
    paths = rows.column(column.image)
    paths = paths.combine_chunks() if hasattr(paths, "combine_chunks") else paths
    labels = rows.column(column.label).to_pylist() if column.label else [None] * rows.num_rows
    given = paths.field("path").to_pylist()
    return [path if isinstance(path, str) else None for path in given], labels


def _open_table(path: Path) -> _Parquet | _Mapped:
    """Raises DataError."""
    with _table_errors(path):
        return _Parquet(path) if path.suffix == TABLE_SUFFIX else _Mapped(path)


@contextmanager
def _table_errors(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged or unusual file into DataError."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"reading {escape(str(path))} needs pyarrow: {extra('data')}") from error
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as error:  # kinds of its errors
        raise DataError(f"{escape(str(path))} cannot be read as a table ({printable(message_of(error))})") from error


def _column_of(schema: Any, path: Path) -> Column:
    """The column of images, of which there must be one. Raises DataError."""
    import pyarrow

    found = [
        field.name
        for field in schema
        if pyarrow.types.is_struct(field.type) and {"bytes", "path"} <= {inner.name for inner in field.type}
    ]
    if len(found) != 1:
        raise DataError(
            f"{escape(str(path))} has {len(found)} columns of images (bytes and path, as datasets stores them): "
            f"expected one. Its columns: {first_few(schema.names)}"
        )
    label = next((name for name in LABEL_NAMES if name in schema.names), None)
    return Column(found[0], label, _class_names(schema, label))


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """The names of the classes in the features of `datasets`; None if there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return None


def _label(value: Any, column: Column) -> str | None:
    """A label by name; None for no label, which `datasets` writes as -1."""
    if value is None or column.classes is None or not isinstance(value, int):
        return None if value is None else str(value)
    return column.classes[value] if 0 <= value < len(column.classes) else None


def _ending(path: str | None) -> str:
    ending = os.path.splitext(path or "")[1].lower()
    return ending if ending in EXTENSIONS else ""


def is_table(source: str | Path) -> bool:
    """Whether `source` is a Parquet file, or the folder of a data set that was saved by `datasets`."""
    return bool(_files_of(Path(source)))


def _files_of(source: Path) -> list[Path]:
    """The files of a table; none if `source` is none."""
    if source.is_file():
        return [source] if source.suffix == TABLE_SUFFIX else []
    if (source / STATE).is_file():
        state = read_json(source / STATE)
        files = state.get("_data_files") if isinstance(state, dict) else None
        names = [one.get("filename") for one in files or [] if isinstance(one, dict)]
        return [source / os.path.basename(name) for name in names if isinstance(name, str)]
    if (source / SPLITS).is_file():
        return [source / SPLITS]  # refused by `open_tables`, with advice
    return []


def open_tables(sources: Sequence[str | Path]) -> TableImages:
    """The images of `sources`, one after the other. Raises DataError."""
    files = [file for source in sources for file in _files_of(Path(source))]
    for file in files:
        if file.name == SPLITS:
            splits = sorted(one.parent.name for one in file.parent.glob(f"*/{STATE}"))
            raise DataError(
                f"{escape(str(file.parent))} has several splits, {first_few(splits)}: give one of these folders"
            )
    return TableImages(files)
