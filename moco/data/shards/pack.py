"""Write images into shards: tar files in the layout of WebDataset, verified, and continued after an interruption."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import IO, Any

import numpy as np
import simplejpeg

from moco.atomic_output import local_path
from moco.data.decode.decode import EXTENSIONS, MAX_FILE_BYTES, BadImage, decode_file, reason_of
from moco.data.loader.shrunk import shrink
from moco.data.shards.rename_unlisted import remove_copies, rename_unlisted
from moco.data.shards.samples import PACK_MARK
from moco.data.shards.scan_tar import scan_tar
from moco.data.shards.shards import FACTS, Shards
from moco.data.sources.encoded import EncodedImages
from moco.data.sources.folder import SHARD_SUFFIX, Folder
from moco.data.sources.images import DataError, Images
from moco.data.sources.manifest import manifest_of
from moco.files import is_temporary_name, read_json, remove_temporary_files, write_atomically, write_json
from moco.text import escape

SHARD_SIZE = 10_000  # images
QUALITY = 90
EVERY = 0.5  # [s] between two calls of `progress`
FULL_COLOUR = 90  # JPEG quality from which colours keep their resolution

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Packing:
    """What decides the bytes of the shards."""

    images: int
    fingerprint: str  # of names, sizes and times of the images
    shard_size: int  # images
    resize: int | None  # [pixels] larger images are shrunk to this shorter side; None: files are copied as they are
    quality: int  # of JPEG files of images that are shrunk


@dataclass(frozen=True)
class PackingJob:
    """What the threads share."""

    images: Images
    labels: np.ndarray | None
    settings: Packing
    seen: list[int] = field(default_factory=list)  # images that are read
    stop: Event = field(default_factory=Event)  # set: leave the shard unfinished


@dataclass(frozen=True)
class Packed:
    """What was written."""

    shards: list[Path]
    images: int
    bytes: int
    bad: dict[str, str]  # name -> reason: images that could not be packed
    reused: int  # shards that an earlier, interrupted call had finished

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "shards": [str(shard) for shard in self.shards]}


def pack(
    images: Images,
    to: Path,
    *,
    resize: int | None = None,
    quality: int = QUALITY,
    shard_size: int = SHARD_SIZE,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = lambda _: None,
) -> Packed:
    """Write `images` into tar files in the folder `to`, and their index. The same call continues an interrupted one.

    Args:
        resize: [pixels] images with a longer shorter side are shrunk to it and stored as JPEG of `quality`; all other
            files are copied byte by byte. None: all are copied.
        shard_size: images in a shard.
        workers: threads, each of which writes a shard.
        overwrite: replace shards of other images or settings in `to`.
        progress: called with the number of images that are done.

    Raises:
        DataError: `to` has other files, or shards of other images or settings; no image can be packed.
        OSError: the disk is full, ...
    """
    to = local_path(to)
    settings = Packing(len(images), manifest_of(images).fingerprint, shard_size, resize, quality)
    _check(images, to, settings, overwrite=overwrite)
    to.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(to)
    facts: dict[str, Any] = read_json(to / FACTS) or {}
    if facts.get("settings") != asdict(settings):
        _remove(to)
        facts = {"settings": asdict(settings), "shards": {}}
        write_json(to / FACTS, facts)
    starts = range(0, len(images), shard_size)
    paths = [to / f"{place:06d}{SHARD_SUFFIX}" for place in range(len(starts))]
    left = [
        (path, range(start, min(start + shard_size, len(images))))
        for path, start in zip(paths, starts, strict=True)
        if not _is_whole(path, facts["shards"].get(path.name))
    ]
    renamed = {
        path: rename_unlisted(path) for path, _ in left if path.name not in facts["shards"] and os.path.lexists(path)
    }
    _write_shards(PackingJob(images, images.labels, settings), left, facts, to, workers=workers, progress=progress)
    remove_copies(renamed, facts["shards"])
    return _packed(paths, facts["shards"], reused=len(paths) - len(left))


def _write_shards(
    job: PackingJob,
    left: list[tuple[Path, range]],
    facts: dict[str, Any],
    to: Path,
    *,
    workers: int,
    progress: Progress,
) -> None:
    """Write the shards of `left`, (file, rows of images), and list each in pack.json when it is finished."""
    packed = len(job.images) - sum(len(rows) for _, rows in left)
    progress(packed)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        tasks = {pool.submit(_write_shard, job, path, rows) for path, rows in left}
        try:
            while tasks:
                done, tasks = wait(tasks, EVERY, return_when=FIRST_COMPLETED)
                _list_shards(done, facts, to)
                progress(packed + len(job.seen))
        except BaseException:
            job.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _list_shards(done: set[Future[tuple[Path, dict[str, Any]]]], facts: dict[str, Any], to: Path) -> None:
    """List finished shards in pack.json: a shard counts once it is there. Raises what ended one, after the others."""
    for task in sorted(done, key=lambda one: one.exception() is not None):
        path, about = task.result()
        facts["shards"][path.name] = about
        write_json(to / FACTS, facts)


def _packed(paths: list[Path], about: dict[str, Any], *, reused: int) -> Packed:
    found = [about[path.name] for path in paths]
    bad = {name: reason for one in found for name, reason in one["bad"].items()}
    images = sum(one["images"] for one in found)
    if not images:
        raise DataError(f"none of {len(bad):,} images can be packed: see what moco check says of them")
    shards = [path for path, one in zip(paths, found, strict=True) if one["images"]]
    Shards(shards)  # builds the index
    return Packed(shards, images, sum(one["bytes"] for one in found), bad, reused)


def _check(images: Images, to: Path, settings: Packing, *, overwrite: bool) -> None:
    """Raise DataError if the shards cannot be written to the folder `to`."""
    if isinstance(images, Folder):
        for source in images.sources if images.local else []:
            root = Path(os.path.realpath(source.root))
            if source.walked and (root == Path(os.path.realpath(to)) or root in Path(os.path.realpath(to)).parents):
                raise DataError(f"{escape(str(to))} lies in the images' own folder: give another folder")
    if not to.exists():
        return
    if not to.is_dir():
        raise DataError(f"{escape(str(to))} is a file: give a folder for the shards")
    facts = read_json(to / FACTS)
    strange = [name for name in sorted(os.listdir(to)) if not (name.startswith(".moco") or is_temporary_name(name))]
    if not strange:
        return
    if not isinstance(facts, dict) or not isinstance(facts.get("shards"), dict):
        raise DataError(f"{escape(str(to))} has other files ({escape(strange[0])}): give an empty folder")
    if facts.get("settings") != asdict(settings) and not overwrite:
        raise DataError(
            f"{escape(str(to))} has shards of other images or settings: give another folder, or --overwrite to replace "
            "them"
        )


def _remove(to: Path) -> None:
    """Remove the shards that pack.json lists."""
    facts = read_json(to / FACTS)
    for name in (facts or {}).get("shards", {}):
        if name.removesuffix(SHARD_SUFFIX).isdecimal() and not (to / name).is_symlink():
            (to / name).unlink(missing_ok=True)


def _is_whole(path: Path, about: dict[str, Any] | None) -> bool:
    """Whether an earlier call has written this shard, whole."""
    return about is not None and path.is_file() and path.stat().st_size == about["bytes"]


def _write_shard(job: PackingJob, path: Path, rows: range) -> tuple[Path, dict[str, Any]]:
    """Write the images `rows` into a shard, and read it again. Returns what pack.json has of it."""
    bad: dict[str, str] = {}

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for index in rows:
                if job.stop.is_set():
                    raise InterruptedError
                job.seen.append(index)
                try:
                    content, ending = _content_of(job.images, index, job.settings)
                except BadImage as error:
                    bad[error.name] = error.reason
                    continue
                _add(archive, job.images, index, content, ending, job.labels)

    digest = write_atomically(path, write)
    count = len(rows) - len(bad)
    if count:
        scan = scan_tar(path)
        found = sum(not member.name.endswith((".cls", ".json")) for member in scan.members)
        if scan.damage or found != count:
            raise DataError(f"{escape(str(path))} cannot be read back: {found:,} of {count:,} images. Check the disk")
    return path, {"images": count, "bytes": path.stat().st_size, "sha256": digest, "bad": bad}


def _content_of(images: Images, index: int, settings: Packing) -> tuple[bytes, str]:
    """The bytes of an image's file in the shard, and its ending. Raises BadImage."""
    name = images.names[index]
    try:
        content, ending = _file_of(images, index)
        if settings.resize is None and content is not None:
            return content, ending
        pixels = images.read(index) if content is None else decode_file(io.BytesIO(content))
        if content is not None and min(pixels.shape[:2]) <= (settings.resize or 0):
            return content, ending
        if settings.resize is None:
            return _png(pixels), ".png"
        return _jpeg(shrink(pixels, settings.resize), settings.quality), ".jpg"
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(name, reason_of(error)) from error


def _file_of(images: Images, index: int) -> tuple[bytes | None, str]:
    """The file of an image, and its ending; (None, "") if the images are not files."""
    if isinstance(images, Folder):
        with images.open(index) as file:
            return file.read(MAX_FILE_BYTES), os.path.splitext(images.names[index])[1].lower()
    ending = os.path.splitext(images.names[index])[1].lower()
    if isinstance(images, EncodedImages) and ending in EXTENSIONS:
        return images.read_bytes(index), ending
    return None, ""


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    colours = "444" if quality >= FULL_COLOUR else "420"
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling=colours)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _add(
    archive: tarfile.TarFile, images: Images, index: int, content: bytes, ending: str, labels: np.ndarray | None
) -> None:
    """Add a sample: the image, its label for other readers of WebDataset, and its facts."""
    mtime = int(images.mtimes[index])
    facts: dict[str, Any] = {
        PACK_MARK: 1, "name": images.names[index], "size": int(images.sizes[index]), "mtime": mtime,
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    parts = {ending.lstrip("."): content}
    if labels is not None:
        facts["label"] = str(images.classes[labels[index]])
        parts["cls"] = str(int(labels[index])).encode()
    parts["json"] = json.dumps(facts).encode()
    for part, data in parts.items():
        info = tarfile.TarInfo(f"{index:09d}.{part}")
        info.size, info.mtime, info.mode = len(data), max(0, mtime // 10**9) % 2**33, 0o644
        archive.addfile(info, io.BytesIO(data))
