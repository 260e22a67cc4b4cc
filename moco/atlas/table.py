"""The atlas as a Parquet table: one row for each image, with its place, properties and neighbours.

Apple's embedding-atlas opens it: columns `x` and `y`, and `neighbors` as a struct of row numbers and distances.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from moco import __version__
from moco.atlas.contents import CategoryColumn, Contents
from moco.files import write_atomically
from moco.recipe import RecipeError
from moco.text import extra

ATLAS_MADE_BY = f"momentum-contrast {__version__}"
KEY = b"made_by"  # in the metadata of the table


def has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def write_table(file: Path, contents: Contents) -> None:
    """Write the table. Rows are in the order of the collection, and `id` counts them from 0.

    Columns: id, path, name, x, y, neighbors (ids, and distances as 1 - cosine similarity), duplicate_of (the id of the
    image that is kept; null for others), outlier (1 - mean cosine similarity to the five nearest), then the properties:
    label, folder, file_size [bytes], date_of_file (UTC), cluster.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise RecipeError(f"a .parquet file needs pyarrow: {extra('atlas')}") from None
    columns = _columns(contents, arrow)
    table = arrow.table(columns).replace_schema_metadata({KEY: ATLAS_MADE_BY.encode()})
    write_atomically(file, lambda opened: parquet.write_table(table, opened))


def _columns(contents: Contents, arrow: Any) -> dict[str, Any]:
    collection, n = contents.collection, len(contents.collection)
    first = {row: group.keep for group in contents.near_duplicates.groups for row in group.others}
    k = contents.neighbours.shape[1]
    offsets = np.arange(n + 1, dtype=np.int32) * k
    neighbours = arrow.StructArray.from_arrays(
        [
            arrow.ListArray.from_arrays(offsets, contents.neighbours.astype(np.int32).ravel()),
            arrow.ListArray.from_arrays(offsets, (1 - contents.similarities).clip(0).astype(np.float32).ravel()),
        ],
        names=["ids", "distances"],
    )
    lonely = 1 - contents.similarities[:, :5].mean(axis=1) if k else np.zeros(n)
    columns = {
        "id": arrow.array(np.arange(n, dtype=np.int64)),
        "path": _texts([collection.path(row) for row in range(n)], arrow),
        "name": _texts(collection.names, arrow),
        "x": contents.layout.xy[:, 0], "y": contents.layout.xy[:, 1],
        "neighbors": neighbours,
        "duplicate_of": arrow.array([first.get(row) for row in range(n)], arrow.int64()),
        "outlier": lonely.astype(np.float32),
    }  # fmt: skip
    for one in contents.properties:
        name = one.name.replace(" ", "_")
        if isinstance(one, CategoryColumn):
            columns[name] = _texts([one.values[code] for code in one.codes.tolist()], arrow)
        elif one.unit == "s":
            columns[name] = arrow.array((one.numbers * 1000).astype("int64"), arrow.timestamp("ms", "UTC"))
        else:
            columns[name] = one.numbers.astype(np.int64)
    return columns


def _texts(texts: Any, arrow: Any) -> Any:
    """Strings in UTF-8. Bytes of file names that are not UTF-8 become \\xNN."""
    return arrow.array([text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for text in texts])


def is_table_of_ours(file: Path) -> bool:
    """Whether `write_table` has written this file. Without pyarrow, False."""
    if not has_pyarrow():
        return False
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        metadata = parquet.read_schema(file).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return False
    return metadata.get(KEY, b"").startswith(b"momentum-contrast")
