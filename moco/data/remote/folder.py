"""`RemoteFolder`: the images below a URL, or of a list of URLs, with the names and the order of a local folder."""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from moco.data.decode.bands import Raw, decode_bands
from moco.data.decode.decode import EXTENSIONS, MAX_FILE_BYTES, BadImage, decode_file, reason_of
from moco.data.decode.scaled import Choose, Scaled, decode_file_scaled
from moco.data.decode.tiff import File
from moco.data.loader.threads import Abandoned
from moco.data.remote.reader import REMOTE_READERS, Reader
from moco.data.remote.store import SIZE_UNKNOWN, ByteRange, StoredObject
from moco.data.remote.urls import check_listed, folder_of, is_url, join, names_from_urls, path_in, public
from moco.data.sources.folder import Folder, Source
from moco.data.sources.images import DataError, LabelCodes
from moco.data.sources.names import pack_names as in_one_piece
from moco.data.sources.path_list import describe_expected_content, parse_list
from moco.data.sources.skipped import Skipped, is_system_folder
from moco.text import first_few

Decoded = TypeVar("Decoded")
LOOKED_UP = 100_000  # images of a list, or of a web server's folder, whose size and ETag are asked for one by one


@dataclass(frozen=True, eq=False)
class RemoteFolder(Folder):
    """Images in a store. `sizes` are 0 where they are not known, and `mtimes` change with the content (`Entry`)."""

    reader: Reader = field(repr=False)
    urls: Sequence[str] = field(repr=False)  # with credentials

    @property
    def local(self) -> bool:
        return False

    def path(self, index: int) -> str:
        """The URL of image `index` without credentials."""
        source = self.sources[self.origin[index]]
        name = self.names[index][len(source.prefix) :]
        return name if is_url(name) else f"{source.root}/{name}"

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._decode(index, decode_file)

    def _decode(self, index: int, decode: Callable[[File], Decoded]) -> Decoded:
        try:
            return decode(self.open(index))
        except (DataError, Abandoned):  # the store is to blame, not the image
            raise
        except ImportError as error:
            raise DataError(str(error)) from error
        except Exception as error:  # as in decode.py
            raise BadImage(self.names[index], reason_of(error)) from error

    def read_bands(self, index: int) -> Raw:
        """All bands of image `index`, as stored. Raises BadImage, StoreError."""
        return self._decode(index, decode_bands)

    def read_scaled(self, index: int, choose: Choose) -> Scaled:
        """Image `index` at the scale that `choose` gives for its size. Raises BadImage, StoreError."""
        return self._decode(index, lambda file: decode_file_scaled(file, choose))

    def open(self, index: int) -> File:
        """The file of image `index`, in memory. Raises FileNotFoundError, ValueError, StoreError."""
        content = self.reader.read(self._part(index))
        if not 0 < len(content) <= MAX_FILE_BYTES:
            raise ValueError(f"{len(content)} bytes: expected 1 to {MAX_FILE_BYTES}")
        return io.BytesIO(content)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start to read images, which will be read in about this order."""
        self.reader.prefetch([self._part(int(i)) for i in indices])

    def forget(self) -> None:
        self.reader.forget()

    def _part(self, index: int) -> ByteRange:
        return ByteRange(self.urls[index], int(self.sizes[index]) or SIZE_UNKNOWN, int(self.mtimes[index]))


class Found(NamedTuple):
    """The images of one source."""

    source: Source
    names: list[str]  # without a prefix
    entries: list[StoredObject]
    labels: LabelCodes


def of_folder(url: str, entries: Iterable[StoredObject], skipped: Skipped, reader: Reader) -> Found:
    """The images among the objects below `url`, by the rules of a local folder. Raises DataError for none."""
    before, start = skipped.counts.copy(), len(path_in(url).rstrip("/") + "/") if path_in(url) else 0
    rows: list[tuple[bytes, str, StoredObject]] = []
    for entry in entries:
        name = path_in(entry.url)[start:]
        if name.endswith("/"):
            continue  # some programs make an empty object for a folder
        if why := _why_skipped(name):
            skipped.add(name, why)
        else:
            rows.append((os.fsencode(name), name, entry))
    if not rows:
        here = Skipped(skipped.counts - before)
        raise DataError(
            f"no images in {public(url)}: found {here if here.counts else 'no objects at all'}. Objects with the "
            f"endings {' '.join(EXTENSIONS)} are read"
        )
    rows.sort(key=lambda row: row[0])
    names = [name for _, name, _ in rows]
    labels = LabelCodes()
    for name in names:
        labels.add(name.split("/", 1)[0] if "/" in name else None)
    found = look_up([entry for _, _, entry in rows], reader)
    return Found(Source(public(url).rstrip("/"), "", True), names, found, labels)


def of_list(source: str, content: bytes) -> tuple[Found, Reader]:
    """The images that the list at `source`, a URL or a path, names. Raises DataError, also for missing ones."""
    rows = parse_list(source, content)
    paths = list(rows.names)
    check_listed(source, paths)
    if not paths:
        raise DataError(f"{public(source)} lists no images: expected a path or a URL a line")
    base = folder_of(source) if is_url(source) else os.path.dirname(os.path.abspath(source))
    urls = [path if is_url(path) else join(base, path) for path in paths]
    schemes = {url.partition("://")[0].lower() for url in urls} - {"https"}
    if len(schemes - {"http"}) + bool({"http"} & schemes or any(u.startswith("https://") for u in urls)) > 1:
        raise DataError(f"{public(source)} lists URLs of several stores: make a list for each")
    reader = Reader(urls[0].partition("://")[0].lower())
    names = [name if is_url(path) else path for name, path in zip(names_from_urls(paths), paths, strict=True)]
    missing: list[str] = []
    entries = look_up([StoredObject(url, SIZE_UNKNOWN, 0) for url in urls], reader, missing)
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(paths):,} images listed in {public(source)} are missing: {first_few(missing)}. "
            f"{describe_expected_content(content)}"
        )
    root = public(base) if is_url(source) else base
    return Found(Source(root, "", False), names, entries, rows.labels), reader


def look_up(entries: list[StoredObject], reader: Reader, missing: list[str] | None = None) -> list[StoredObject]:
    """`entries` with sizes and stamps, where they are not known and not too many. Adds missing ones to `missing`."""
    unknown = [i for i, entry in enumerate(entries) if entry.size == SIZE_UNKNOWN]
    if not unknown or len(unknown) > LOOKED_UP:
        return entries

    def ask(place: int) -> StoredObject:
        try:
            return reader.store.look_up(entries[place].url)
        except FileNotFoundError:
            if missing is not None:
                missing.append(public(entries[place].url))
            return entries[place]

    found = list(entries)
    with ThreadPoolExecutor(REMOTE_READERS) as pool:
        for place, entry in zip(unknown, pool.map(ask, unknown), strict=True):
            found[place] = entry
    return found


def join_remote_folders(
    found: Sequence[Found], prefixes: Sequence[str], skipped: Skipped, reader: Reader
) -> RemoteFolder:
    """The images of several sources as one folder."""
    labels = LabelCodes()
    for one in found:
        labels.extend(one.labels)
    labelling = labels.labelling()
    entries = [entry for one in found for entry in one.entries]
    return RemoteFolder(
        names=in_one_piece(prefix + name for prefix, one in zip(prefixes, found, strict=True) for name in one.names),
        sizes=np.array([max(0, entry.size) for entry in entries], dtype=np.int64),
        mtimes=np.array([entry.stamp for entry in entries], dtype=np.int64),
        labels=labelling.numbers if labelling.whole else None,
        classes=labelling.names if labelling.whole else [],
        sources=[one.source._replace(prefix=prefix) for prefix, one in zip(prefixes, found, strict=True)],
        origin=np.repeat(np.arange(len(found), dtype=np.int32), [len(one.names) for one in found]),
        skipped=skipped,
        labelling=labelling,
        reader=reader,
        urls=in_one_piece(entry.url for entry in entries),
    )


def _why_skipped(name: str) -> str:
    """Why an object below a folder is no image; empty if it is one."""
    *folders, base = name.split("/")
    if any(part.startswith(".") for part in (*folders, base)):
        return "hidden"
    if any(map(is_system_folder, folders)):
        return "system folder"
    extension = os.path.splitext(base)[1].lower()
    if extension in EXTENSIONS:
        return ""
    return f"{extension[:20]} file" if extension else "file without an ending"
