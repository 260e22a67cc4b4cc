"""`moco embed`: write the features of many images to one file, with their names, in constant memory."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float32

from moco.atomic_output import feature_files, local_path, open_staged_files, refuse_existing
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import eval_batches
from moco.data.sources.folder import DataError, Images
from moco.data.sources.open import list_image_files, open_images
from moco.device import workers_for
from moco.evaluate.features import Pretrained, batch_for, check_finite, load_pretrained, set_eval_mode
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError, unknown
from moco.text import escape, extra, guard_cell
from moco.weights.encoder_folder import Weights

Chunk = tuple[list[str], Float32[np.ndarray, "n D"]]  # names and features of some images


@dataclass(frozen=True)
class Embedded:
    """The files and the numbers of images that `embed_to_file` has written."""

    files: Sequence[Path]  # with the features; for .npy, then the file with the names
    images: int  # rows
    features: int  # columns
    left_out: dict[str, str]  # name of an image that could not be read -> reason

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            "files": list(map(str, self.files)), "images": self.images, "features": self.features,
            "left_out": self.left_out,
        }  # fmt: skip


def embed_to_file(
    weights: Weights,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    normalize: bool = False,
    architecture: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Embedded:
    """Write the pooled features of all images to `out`: .npy (names in STEM.names.txt), .csv or .parquet.

    The files appear together when they are complete, so a .npy file and its names always belong together.

    Args:
        data: folders, list files or single images.
        normalize: divide each feature by its Euclidean length.
        max_bad: how many unreadable images may be left out (below 1: a share); None: 0.1 %, at least 10.
        overwrite: replace existing files.

    Raises:
        RecipeError: another suffix, no such folder, a file that exists, no pyarrow for parquet, or weights that cannot
            be used.
        DataError: no images, or too many unreadable ones. FloatingPointError: a feature that is not finite.
    """
    files, progress = output_files(out), progress or Progress()
    refuse_existing(files, overwrite=overwrite)
    progress.stage("looking for images and weights")
    images = open_images(data, single=True)
    _check_not_read([*([data] if isinstance(data, str | Path) else data), weights], images, files)
    pretrained = load_pretrained(weights, architecture=architecture, device=device)
    progress.stage("features", len(images))
    quarantine, names = Quarantine(None, max_bad, len(images)), []
    workers = workers_for(workers)
    chunks = _chunks(pretrained, images, normalize=normalize, workers=workers, quarantine=quarantine)
    with open_staged_files(files, overwrite=overwrite) as (file, *more):
        WRITERS[files[0].suffix](file, _collect_names(names, chunks, progress), pretrained.encoder.num_features)
        if not names:
            raise DataError(f"none of the {len(images):,} images can be read")
        for beside in more:
            beside.write("".join(f"{name}\n" for name in names).encode())
    return Embedded(files, len(names), pretrained.encoder.num_features, quarantine.bad)


def output_files(out: str | Path) -> list[Path]:
    """The files to write for `out`. Raises RecipeError if `out` has another suffix or no folder."""
    out = local_path(out)
    if out.suffix not in WRITERS:
        raise RecipeError(unknown("kind of file for features", out.suffix or out.name, list(WRITERS)))
    if not out.parent.is_dir():
        raise RecipeError(f"{out} cannot be written: the folder {out.parent} does not exist. Create it first")
    if out.suffix == ".parquet":
        _import_pyarrow()
    return feature_files(out)


def _check_not_read(given: Sequence[str | Path], images: Images, files: Sequence[Path]) -> None:
    """Raise RecipeError if one of the files to write is also one to read."""
    for file in files:
        if not file.exists():
            continue
        read = [str(one) for one in given if os.path.exists(one)] + list_image_files(images)
        if any(os.path.exists(one) and os.path.samefile(one, file) for one in read):
            raise RecipeError(
                f"{escape(str(file))} is read by this command, and must not be overwritten: give another name"
            )


def _chunks(
    pretrained: Pretrained, images: Images, *, normalize: bool, workers: int, quarantine: Quarantine
) -> Iterator[Chunk]:
    """The features of one mini-batch after another, with one-line names."""
    data, device = pretrained.data, pretrained.device
    batches = eval_batches(
        images, data, batch_size=batch_for(data), device=device, workers=workers, quarantine=quarantine
    )
    for x, ids in batches:
        with set_eval_mode(pretrained.encoder):
            y = pretrained.encoder.features(x).float()
        rows: list[int] = ids.tolist()
        names = [escape_line_breaks(images.names[i]) for i in rows]
        check_finite(y, names)
        yield names, (F.normalize(y) if normalize else y).cpu().numpy()


def _collect_names(names: list[str], chunks: Iterator[Chunk], progress: Progress) -> Iterator[Chunk]:
    """`chunks`, whose names are added to `names` as they pass."""
    for chunk in chunks:
        names.extend(chunk[0])
        progress.add(len(chunk[0]))
        yield chunk


def escape_line_breaks(name: str) -> str:
    """A file name as one line of valid UTF-8: line breaks and bytes that are not text become escapes."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return name.replace("\n", "\\n").replace("\r", "\\r")


def write_npy(file: IO[bytes], chunks: Iterator[Chunk], num_features: int) -> None:
    """Write one float32 array n x D. The header contains n, so it is written again at the end, in the same space."""

    def header(n: int) -> bytes:
        text = io.BytesIO()
        np.lib.format.write_array_header_1_0(text, {"descr": "<f4", "fortran_order": False, "shape": (n, num_features)})
        return text.getvalue()

    file.write(header(0))
    n = 0
    for names, x in chunks:
        file.write(x.astype("<f4").tobytes())
        n += len(names)
    assert len(header(n)) == len(header(0))
    file.seek(0)
    file.write(header(n))


def write_csv(file: IO[bytes], chunks: Iterator[Chunk], num_features: int) -> None:
    """Write columns name, f0, f1, ...; nine digits restore the same float32."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow(["name", *(f"f{i}" for i in range(num_features))])
    for names, x in chunks:
        rows.writerows(
            [guard_cell(name), *(f"{value:.9g}" for value in row)] for name, row in zip(names, x, strict=True)
        )
    text.flush()
    text.detach()


def write_parquet(file: IO[bytes], chunks: Iterator[Chunk], num_features: int) -> None:
    """Write columns `name` (string) and `feature` (a list of D float32)."""
    arrow, parquet = _import_pyarrow()
    schema = arrow.schema([("name", arrow.string()), ("feature", arrow.list_(arrow.float32(), num_features))])
    with parquet.ParquetWriter(file, schema) as writer:
        for names, x in chunks:
            features = arrow.FixedSizeListArray.from_arrays(arrow.array(x.ravel()), num_features)
            writer.write_batch(arrow.record_batch([arrow.array(names, arrow.string()), features], schema=schema))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise RecipeError(f"a .parquet file needs pyarrow: {extra('data')}. Or write .npy or .csv") from None
    return pyarrow, pyarrow.parquet


WRITERS = {".npy": write_npy, ".csv": write_csv, ".parquet": write_parquet}
