"""The index of shards: where each image is, its name and label. Built once, then mapped into memory.

It is a folder beside the shards, or in the cache where that cannot be written:

    shards.json    the shards with their sizes and times, classes, damaged parts
    samples.npy    one record an image: shard, offset, size, mtime, label, place of its name
    names.bin      all names as UTF-8, one after the other
"""

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from moco.data.shards.samples import Sample, samples_of
from moco.data.shards.scan_tar import scan_tar
from moco.data.sources.forked_map import map_in_forks
from moco.data.sources.images import DataError, LabelCodes
from moco.data.sources.names import Names
from moco.files import read_json, temporary_name, write_json
from moco.text import escape

INDEX_FOLDER = ".moco-index"
VERSION = 2
RECORD = np.dtype(
    [("shard", "<u4"), ("offset", "<i8"), ("size", "<i8"), ("mtime", "<i8"), ("label", "<i8"), ("name", "<u8")]
)
READ_AHEAD = 2**28  # [bytes] of a larger index, single records are read; a smaller one is in memory soon
LISTED = 1000  # damaged parts in the index, at most

ReportLine = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Index:
    """The images in some shards."""

    shards: tuple[Path, ...]
    records: np.ndarray  # n of RECORD; `label` is an index into `classes`, -1: none
    names: Names
    classes: tuple[str, ...]
    damage: tuple[str, ...]  # sentences
    damaged: int  # parts in all
    counts: Int64[np.ndarray, " s"]  # images in each shard
    labelled: bool  # every image has a label, and there are at least two different ones


def open_index(shards: Sequence[Path], *, cache: Path, report: ReportLine = lambda _: None) -> Index:
    """The index of `shards`, which are in one folder. It is built if there is none, or if they have changed.

    Args:
        cache: the folder for indexes of shards that lie where nothing can be written.
        report: called with a line of progress.

    Raises:
        DataError: a shard that is no tar file, or no image in any.
    """
    facts = [_facts_of(shard) for shard in shards]
    folder = shards[0].parent
    number = hashlib.sha256(json.dumps([os.path.realpath(folder), [one.name for one in shards]]).encode()).hexdigest()
    places = (folder / INDEX_FOLDER, cache / "shards" / number[:16])
    for place in places:
        if (found := load_index(place, shards, facts)) is not None:
            return found
    return keep_index(_build(shards, facts, report), shards, facts, places)


Built = tuple[np.ndarray, bytes, dict[str, Any]]  # records, names, and what shards.json has


def keep_index(built: Built, shards: Sequence[Path], facts: list[list[Any]], places: Iterable[Path]) -> Index:
    """A new index, written to the first of `places` where that is possible, and mapped from there."""
    for place in places:
        with suppress(OSError):
            _save(place, *built)
            if (found := load_index(place, shards, facts)) is not None:
                return found
    records, text, about = built
    return _index(shards, records, np.frombuffer(text, dtype=np.uint8), about)


def _facts_of(shard: Path) -> list[Any]:
    """Name, size [bytes] and time of change [ns] of a shard."""
    status = shard.stat()
    return [shard.name, status.st_size, status.st_mtime_ns]


def _build(shards: Sequence[Path], facts: list[list[Any]], report: ReportLine) -> Built:
    """Read the headers of all shards."""
    rows: list[tuple[int, Sample]] = []
    damage: list[str] = []
    for number, (samples, damaged) in enumerate(map_in_forks(_read_shard, shards)):
        report(f"indexing shard {number + 1:,} of {len(shards):,}: {escape(shards[number].name)}")
        rows += [(number, sample) for sample in samples]
        damage += [f"{escape(shards[number].name)}: {one}" for one in damaged]
    return assemble(rows, damage, facts, where=str(shards[0].parent))


def _read_shard(shard: Path) -> tuple[list[Sample], list[str]]:
    """The images in a shard, and its damaged parts. Raises DataError."""
    scan = scan_tar(shard)
    return list(samples_of(shard, scan)), scan.damage


def assemble(rows: list[tuple[int, Sample]], damage: list[str], facts: list[list[Any]], *, where: str) -> Built:
    """An index of images, each with the number of its shard. Raises DataError for none."""
    if not rows:
        raise DataError(f"no images in {len(facts):,} tar files of {escape(where)}")
    labels = LabelCodes()
    for _, sample in rows:
        labels.add(sample.label)
    labelling = labels.labelling()
    names = [sample.name.encode("utf-8", "surrogateescape") for _, sample in rows]
    records = np.zeros(len(rows), dtype=RECORD)
    records["shard"] = [number for number, _ in rows]
    for field in ("offset", "size", "mtime"):
        records[field] = [getattr(sample, field) for _, sample in rows]
    records["label"], records["name"] = labelling.numbers, np.cumsum([len(name) for name in names])
    about = {
        "version": VERSION, "shards": facts, "images": len(records), "classes": list(labelling.names),
        "damage": damage[:LISTED], "damaged": len(damage), "labelled": labelling.whole,
        "counts": np.bincount(records["shard"], minlength=len(facts)).tolist(),
    }  # fmt: skip
    return records, b"".join(names), about


def _save(place: Path, records: np.ndarray, text: bytes, about: dict[str, Any]) -> None:
    """Write the index to the folder `place`, which appears whole. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and not (place / "shards.json").is_file():
        raise FileExistsError(place)  # not an index: a folder of the user's
    temporary = temporary_name(place)
    temporary.mkdir()
    try:
        np.save(temporary / "samples.npy", records)
        (temporary / "names.bin").write_bytes(text)
        write_json(temporary / "shards.json", about)
        if place.exists():
            old = temporary_name(place)
            place.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        temporary.rename(place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_index(place: Path, shards: Sequence[Path], facts: list[list[Any]]) -> Index | None:
    """The index in `place`; None if there is none, it is of other shards, or it is damaged."""
    about = read_json(place / "shards.json")
    if not isinstance(about, dict) or about.get("version") != VERSION or about.get("shards") != facts:
        return None
    try:
        records = np.load(place / "samples.npy", mmap_mode="r", allow_pickle=False)
        if records.nbytes > READ_AHEAD:
            _expect_jumps(records)
        text = np.memmap(place / "names.bin", dtype=np.uint8, mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = records.dtype == RECORD and len(records) == about.get("images") and int(records["name"][-1]) == len(text)
    return _index(shards, records, text, about) if fits else None


def _expect_jumps(mapped: np.ndarray) -> None:
    """Tell the system that a mapped file is read here and there, so that it reads a page each time and not 32."""
    memory = getattr(mapped, "_mmap", None)
    if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        memory.madvise(mmap.MADV_RANDOM)


def _index(shards: Sequence[Path], records: np.ndarray, text: np.ndarray, about: dict[str, Any]) -> Index:
    return Index(
        tuple(shards), records, Names(text, records["name"]), tuple(about["classes"]), tuple(about["damage"]),
        int(about["damaged"]), np.array(about["counts"], dtype=np.int64), bool(about["labelled"]),
    )  # fmt: skip
