"""`ZipImages`: the images in zip files, read in place. Nothing is extracted.

The list of files at the end of a zip file is read once. An image is read by its place, unpacked into memory with the
size that the list states as the limit, and compared with the checksum of the list.
"""

import calendar
import itertools
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moco.data.decode.decode import EXTENSIONS, MAX_FILE_BYTES
from moco.data.sources.encoded import MOST_RATIO, MOST_UNPACKED, EncodedImages
from moco.data.sources.folder import ZIP_SUFFIX, make_prefixes
from moco.data.sources.images import DataError, LabelCodes
from moco.data.sources.names import join_names, pack_names, with_prefix
from moco.data.sources.skipped import Skipped, is_system_folder
from moco.text import escape, message_of

ENCRYPTED, HEADER, SIGNATURE = 0x1, 30, b"PK\x03\x04"  # flag; [bytes] of a file's own header, and how it begins
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipMember(NamedTuple):
    """An image in a zip file."""

    name: str  # below the folder that all images are in
    offset: int  # [bytes] of its header
    packed: int  # [bytes]
    size: int  # [bytes] unpacked
    checksum: int  # CRC-32
    method: int
    mtime: int  # [ns]


class ZipImages(EncodedImages):
    """The images of `archives`, each sorted by the bytes of their names. Threads may share them.

    A folder that all images of an archive are in is left out of their names. The label is the first folder of the name.

    Raises:
        DataError: no zip file, or no image in one.
    """

    def __init__(self, archives: Sequence[str | Path]):
        self.archives = tuple(os.fspath(path) for path in archives)
        self.skipped = Skipped()
        found = [_images_of(path, self.skipped) for path in self.archives]
        prefixes = make_prefixes([Path(os.path.abspath(path)) for path in self.archives])
        entries = [entry for one in found for entry in one]
        names = (pack_names(entry.name for entry in one) for one in found)
        self._names = join_names([with_prefix(prefix, one) for prefix, one in zip(prefixes, names, strict=True)])
        labels = LabelCodes()
        for entry in entries:
            labels.add(entry.name.partition("/")[0] if "/" in entry.name else None)
        labelling = labels.labelling()
        self.labels = labelling.numbers if labelling.whole else None
        self.classes: Sequence[str] = labelling.names if labelling.whole else []
        self.sizes = np.array([entry.size for entry in entries], dtype=np.int64)
        self.mtimes = np.array([entry.mtime for entry in entries], dtype=np.int64)
        self._archive = np.repeat(np.arange(len(found)), [len(one) for one in found])
        self._places = np.array([entry[1:6] for entry in entries], dtype=np.int64)  # of Entry, from `offset` on

    def read_bytes(self, index: int) -> bytes:
        offset, packed, size, checksum, method = self._places[index].tolist()
        descriptor = os.open(self.archives[self._archive[index]], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            content = os.pread(descriptor, packed, offset + _header_of(os.pread(descriptor, HEADER, offset)))
        finally:
            os.close(descriptor)
        if len(content) < packed:
            raise ValueError("the zip file ends within it")
        content = content if method == zipfile.ZIP_STORED else _unpacked(content, size)
        if len(content) != size or zlib.crc32(content) != checksum:
            raise ValueError("damaged in the zip file: its size or checksum is another one than the zip file lists")
        return content


def is_zip(source: str | Path) -> bool:
    """Whether `source` is a file with the ending of zip files."""
    return os.fspath(source).lower().endswith(ZIP_SUFFIX) and os.path.isfile(source)


def _header_of(header: bytes) -> int:
    """[bytes] The length of the header before the content of a file. Raises ValueError."""
    if len(header) < HEADER or not header.startswith(SIGNATURE):
        raise ValueError("damaged in the zip file: its header is not where the zip file says")
    name, extra = struct.unpack("<HH", header[26:30])
    return HEADER + name + extra


def _unpacked(content: bytes, size: int) -> bytes:
    """Deflated bytes, unpacked: one byte more than `size` at most. Raises ValueError."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    except zlib.error as error:
        raise ValueError(f"damaged in the zip file: {error}") from error


def _images_of(path: str, skipped: Skipped) -> list[ZipMember]:
    """The images in the zip file `path`, sorted by the bytes of their names. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos, length = archive.infolist(), os.path.getsize(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(
            f"{escape(path)} cannot be read as a zip file ({message_of(error)}): it may be cut short, as after an "
            "interrupted download"
        ) from error
    here, entries = Skipped(), dict[str, ZipMember]()
    for info in infos:
        name = info.filename.replace("\\", "/")  # of some tools for Windows
        if info.is_dir() or name.endswith("/"):
            continue
        if reason := _why_not(name, info, length):
            here.add(name, reason)
            continue
        if name in entries:  # an archive that was added to: the last one counts, as when it is extracted
            here.add(name, "older file of the same name")
        entries[name] = ZipMember(
            name, info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type, _time_of(info)
        )
    for name, reason in here.names.items():
        skipped.names.setdefault(name, reason)
    skipped.counts.update(here.counts)
    if not entries:
        raise DataError(
            f"no images in {escape(path)}: found {here if here.counts else 'no files at all'}. "
            f"Files with the endings {' '.join(EXTENSIONS)} are read"
        )
    common = _common_folder(entries)
    below = (entry._replace(name=entry.name[len(common) :]) for entry in entries.values())
    return sorted(below, key=lambda entry: os.fsencode(entry.name))


def _why_not(name: str, info: zipfile.ZipInfo, length: int) -> str:
    """Why a file in a zip file of `length` bytes is skipped; empty if it is read."""
    *folders, base = name.split("/")
    ending = os.path.splitext(base)[1].lower()
    if any(map(is_system_folder, folders)):
        return "system folder"
    if ".." in folders or name.startswith("/") or (folders and folders[0].endswith(":")):
        return "path that leads out of the zip file"
    if any(part.startswith(".") for part in (*folders, base)):
        return "hidden"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "not a regular file"
    if ending not in EXTENSIONS:
        return f"{ending[:20]} file" if ending else "file without an ending"
    if info.flag_bits & ENCRYPTED:
        return "encrypted"
    if info.compress_type not in METHODS:
        return "compressed by another method than deflate"
    if not 0 < info.file_size <= MAX_FILE_BYTES:
        return "empty, or too large"
    if info.file_size > max(MOST_UNPACKED, info.compress_size * MOST_RATIO):
        return "much larger unpacked than a packed image is"
    inside = info.header_offset >= 0 and info.header_offset + info.compress_size <= length
    return "" if inside else "beyond the end of the zip file"


def _common_folder(names: dict[str, ZipMember]) -> str:
    """The folders that all names begin with, each with its slash."""
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    together = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{folder}/" for folder, _ in together)


def _time_of(info: zipfile.ZipInfo) -> int:
    """[ns] The time of change as it is written, without a time zone, in steps of two seconds; 0 if it is no time."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0)) * 10**9
    except (ValueError, OverflowError):
        return 0
