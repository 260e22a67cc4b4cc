"""A collection: features of images, from a file of `moco embed` or from an encoder and images."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from moco.atomic_output import feature_files
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.band_images import as_pictures
from moco.data.sources.folder import DataError, Folder
from moco.data.sources.open import open_folder
from moco.device import workers_for
from moco.evaluate.cache import cache_of, extract_each_cached
from moco.evaluate.embed import WRITERS, escape_line_breaks
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError
from moco.text import escape, extra, first_few

DataSources = str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class Collection:
    """Images with their features, in a fixed order."""

    x: Float32[np.ndarray, "n D"]  # of length 1
    names: Sequence[str]
    images: Folder | None  # None: the features come from a file, and no images were given
    ids: Int64[np.ndarray, "n"]  # index of each row in `images`; without images, the row
    encoder: Pretrained | None  # None: the features come from a file
    left_out: dict[str, str]  # name of an image that could not be read -> reason

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> str:
        """The path of the image; its name where the images are not known."""
        return self.names[row] if self.images is None else self.images.path(int(self.ids[row]))

    def require_images(self) -> Folder:
        """The images. Raises DataError if they are not known."""
        if self.images is None:
            raise DataError("these features come from a file: give the folder of their images, too")
        return self.images


def is_features_file(path: str | Path) -> bool:
    """Whether this is a file that `moco embed` writes. A .csv file may be a list of images: its header decides."""
    path = Path(path)
    if path.suffix not in WRITERS or not path.is_file():
        return False
    if path.suffix == ".csv":
        with path.open("rb") as file:
            return file.read(8) == b"name,f0,"
    return True


def open_collection(
    source: str | Path,
    data: DataSources | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Collection:
    """The features of images.

    Args:
        source: a file of `moco embed`, or weights, which encode `data`; a run stores these features.
        data: folders or lists of images. With a file, only needed where the pixels are.

    Raises:
        DataError: no images, too many unreadable ones, or a file that does not belong to them. RecipeError: weights
            without images, or that cannot be used.
    """
    progress = progress or Progress()
    if is_features_file(source):
        return _from_file(Path(source), data)
    if not data:
        raise RecipeError(f"{escape(str(source))} is an encoder: give the images (DATA), or a file of `moco embed`")
    progress.stage("looking for images and weights")
    pretrained = load_pretrained(source, device=device)
    images = as_pictures(open_folder(data), pretrained.data)
    quarantine = Quarantine(None, max_bad, len(images))
    found = extract_each_cached(
        {"": pretrained.encoder}, images, pretrained.data, device=pretrained.device, workers=workers_for(workers),
        quarantine=quarantine, cache=cache_of(source, say), progress=progress,
    )[""]  # fmt: skip
    return Collection(
        normalize_rows(found.x.numpy()), found.names, images, found.ids.numpy(), pretrained, quarantine.bad
    )


def normalize_rows(x: Float32[np.ndarray, "*n D"]) -> Float32[np.ndarray, "*n D"]:
    """Each feature divided by its length. Zeros stay."""
    lengths = np.sqrt(np.einsum("...d,...d->...", x, x))[..., None]
    return (x / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _from_file(file: Path, data: DataSources | None) -> Collection:
    names, x = read_features(file)
    if len(names) != len(x) or not len(x):
        raise DataError(f"{escape(str(file))} has {len(x):,} features and {len(names):,} names: embed the images again")
    if not np.isfinite(x).all():
        raise DataError(f"{escape(str(file))} has features that are not finite: embed the images again")
    if not data:
        return Collection(normalize_rows(x), names, None, np.arange(len(names)), None, {})
    images = open_folder(data)
    place = {escape_line_breaks(name): i for i, name in enumerate(images.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(names):,} images of {escape(str(file))} are not in the given folder, such "
            f"as {first_few(missing)}: give the same DATA as to `moco embed`"
        )
    ids = np.array([place[name] for name in names], dtype=np.int64)
    known = [images.names[int(i)] for i in ids]
    return Collection(normalize_rows(x), known, images, ids, None, {})


def read_features(file: Path) -> tuple[list[str], Float32[np.ndarray, "n D"]]:
    """Names and features that `moco embed` has written. Raises DataError for another or a damaged file."""
    try:
        return READERS[file.suffix](file)
    except (ValueError, OSError, KeyError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{escape(str(file))} cannot be read as features of `moco embed`: {error}") from error


def _read_npy(file: Path) -> tuple[list[str], np.ndarray]:
    x = np.load(file, allow_pickle=False)
    if x.ndim != 2 or x.dtype != np.float32:
        raise ValueError(f"expected n x D float32, got {x.shape} {x.dtype}")
    return feature_files(file)[1].read_text(encoding="utf-8").split("\n")[:-1], x


def _read_csv(file: Path) -> tuple[list[str], np.ndarray]:
    names, rows = list[str](), list[np.ndarray]()
    with file.open(newline="", encoding="utf-8") as text:
        lines = csv.reader(text)
        next(lines)
        for name, *values in lines:
            names.append(name.removeprefix("'"))  # `guard_cell` adds it, also to names that begin with one
            rows.append(np.array(values, dtype=np.float32))
    return names, np.stack(rows)


def _read_parquet(file: Path) -> tuple[list[str], np.ndarray]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"a .parquet file needs pyarrow: {extra('data')}") from None
    table: Any = parquet.read_table(os.fspath(file), columns=["name", "feature"])
    x = table["feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return table["name"].to_pylist(), x.reshape(len(table), -1)


READERS = {".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}
