"""`RemoteShards`: images in tar files of a store, read by ranges of bytes, and their index, which is kept locally."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from moco.data.decode.bands import Raw, decode_bands
from moco.data.decode.decode import MAX_FILE_BYTES, BadImage, decode_file, reason_of
from moco.data.decode.scaled import Choose, Scaled, decode_file_scaled
from moco.data.decode.tiff import File
from moco.data.loader.threads import Abandoned
from moco.data.remote.range_file import RangeFile
from moco.data.remote.reader import Reader
from moco.data.remote.store import SIZE_UNKNOWN, ByteRange, StoredObject
from moco.data.remote.urls import folder_of, path_in, public
from moco.data.shards.index import INDEX_FOLDER, RECORD, VERSION, Built, Index, assemble, keep_index, load_index
from moco.data.shards.samples import MAX_NOTE, Sample, samples_in
from moco.data.shards.scan_tar import TAR_BLOCK, Member, scan_file
from moco.data.shards.shards import Shards
from moco.data.sources.images import DataError, StoreRefused
from moco.files import cache_folder
from moco.text import escape

Decoded = TypeVar("Decoded")
SCANNERS = 8  # shards that are indexed at a time


class RemoteShards(Shards):
    """The images of tar files in a store, as `Shards`.

    Raises:
        DataError: a shard that is no tar file, or no image in any. StoreError: a store that does not answer.
    """

    def __init__(self, entries: Sequence[StoredObject], reader: Reader):
        if len({entry.url for entry in entries}) < len(entries):
            raise DataError("a shard is given twice, so its images would count twice: give it once")
        self.entries, self.reader = tuple(entries), reader
        self.shards = ()  # none are files
        self.index: Index = open_remote_index(self.entries, reader)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteShards, (self.entries, self.reader)

    def read_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises FileNotFoundError, ValueError, StoreError."""
        return self.reader.read(self._part(index))

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` as RGB. Raises BadImage, StoreError."""
        return self._decode(index, decode_file)

    def read_bands(self, index: int) -> Raw:
        """All bands of image `index`, as stored. Raises BadImage, StoreError."""
        return self._decode(index, decode_bands)

    def read_scaled(self, index: int, choose: Choose) -> Scaled:
        """Image `index` at the scale that `choose` gives for its size. Raises BadImage, StoreError."""
        return self._decode(index, lambda file: decode_file_scaled(file, choose))

    def _decode(self, index: int, decode: Callable[[File], Decoded]) -> Decoded:
        try:
            return decode(io.BytesIO(self.read_bytes(index)))
        except (DataError, Abandoned):  # the store is to blame, not the image
            raise
        except ImportError as error:
            raise DataError(str(error)) from error
        except Exception as error:  # as in decode.py
            raise BadImage(self.names[index], reason_of(error)) from error

    def read_ahead(self, ids: Int64[np.ndarray, " N"]) -> None:
        """Nothing: `prefetch` reads ahead."""

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start to read images, which will be read in about this order."""
        self.reader.prefetch([self._part(int(i)) for i in indices])

    def forget(self) -> None:
        self.reader.forget()

    def _part(self, index: int) -> ByteRange:
        record = self.index.records[index]
        entry = self.entries[record["shard"]]
        return ByteRange(entry.url, int(record["size"]), entry.stamp, int(record["offset"]))


def open_remote_index(entries: Sequence[StoredObject], reader: Reader) -> Index:
    """The index of shards: the one in the local cache, or beside the shards, or a new one.

    Raises:
        DataError, StoreError: as `RemoteShards`.
    """
    facts = [[path_in(entry.url).rpartition("/")[2], entry.size, entry.stamp] for entry in entries]
    key = json.dumps([[public(entry.url), entry.size, entry.stamp] for entry in entries])
    place = cache_folder() / "shards" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if (found := load_index(place, (), facts)) is not None:
        return found
    built = _beside(entries, facts, reader) or _build(entries, facts, reader)
    return keep_index(built, (), facts, [place])


def _beside(entries: Sequence[StoredObject], facts: list[list[Any]], reader: Reader) -> Built | None:
    """The index that `moco pack` has written beside the shards; None if there is none, or it is not of these shards."""
    folders = {folder_of(entry.url) for entry in entries}
    base = f"{folders.pop()}/{INDEX_FOLDER}" if len(folders) == 1 else ""

    def read(name: str) -> bytes:
        return reader.store.read(ByteRange(f"{base}/{name}", SIZE_UNKNOWN, 0))

    if not base:
        return None
    try:
        about = json.loads(read("shards.json"))
        if [row[:2] for row in about["shards"]] != [row[:2] for row in facts] or about["version"] != VERSION:
            return None
        records, text = np.load(io.BytesIO(read("samples.npy")), allow_pickle=False), read("names.bin")
        fits = _is_valid(records, text, about, entries) and _headers_fit(records, entries, reader)
    except StoreRefused:  # some stores refuse to say what is not there
        return None
    except DataError:  # StoreError too
        raise
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, IndexError):
        return None
    if not fits:
        return None
    labelled = len(about["classes"]) > 1 and bool((records["label"] >= 0).all())
    counts = np.bincount(records["shard"], minlength=len(entries)).tolist()
    return records, text, about | {"shards": facts, "counts": counts, "labelled": labelled}


def _is_valid(records: np.ndarray, text: bytes, about: dict[str, Any], entries: Sequence[StoredObject]) -> bool:
    """Whether an index that was made elsewhere points into its shards, classes and names only."""
    if records.dtype != RECORD or records.ndim != 1 or not len(records) or len(records) != about["images"]:
        return False
    classes, damage = about["classes"], about["damage"]
    if not all(isinstance(one, str) for one in (*classes, *damage)) or not isinstance(about["damaged"], int):
        return False
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    inside = records["shard"] < len(entries)
    ends = np.concatenate([[0], records["name"].astype(np.int64)])
    return bool(
        inside.all()
        and (records["offset"] >= TAR_BLOCK).all()
        and ((records["size"] > 0) & (records["size"] <= MAX_FILE_BYTES)).all()
        and (records["offset"] <= sizes[records["shard"]] - records["size"]).all()
        and ((records["label"] >= -1) & (records["label"] < max(1, len(classes)))).all()
        and (np.diff(ends) >= 0).all()
        and ends[-1] == len(text)
    )


def _headers_fit(records: np.ndarray, entries: Sequence[StoredObject], reader: Reader) -> bool:
    """Whether each shard has a header with the right size before the last of its images, as the index says."""

    def fits(number: int) -> bool:
        rows = records[records["shard"] == number]
        if not len(rows):
            return True
        last, entry = rows[-1], entries[number]
        header = reader.store.read(ByteRange(entry.url, TAR_BLOCK, entry.stamp, int(last["offset"]) - TAR_BLOCK))
        try:
            return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size == int(last["size"])
        except tarfile.TarError:
            return False

    with ThreadPoolExecutor(SCANNERS) as pool:
        return all(pool.map(fits, range(len(entries))))


def _build(entries: Sequence[StoredObject], facts: list[list[Any]], reader: Reader) -> Built:
    """Read the headers of all shards, each once from its start to its end."""

    def scan(number: int) -> tuple[list[Sample], list[str]]:
        entry, name = entries[number], str(facts[number][0])
        file, notes = RangeFile(reader.store, entry), dict[Member, bytes]()
        found = scan_file(file, public(entry.url), _note_reader(file, notes))
        samples = list(samples_in(PurePosixPath(name).stem, found, lambda member: notes.get(member, b"")))
        return samples, [f"{escape(name)}: {one}" for one in found.damage]

    with ThreadPoolExecutor(SCANNERS) as pool:
        scanned = list(pool.map(scan, range(len(entries))))
    rows = [(number, sample) for number, (samples, _) in enumerate(scanned) for sample in samples]
    return assemble(
        rows, [one for _, damage in scanned for one in damage], facts, where=public(folder_of(entries[0].url))
    )


def _note_reader(file: RangeFile, notes: dict[Member, bytes]) -> Callable[[Member], None]:
    """A function that stores the content of small files with labels, when the scan comes by."""

    def visit(member: Member) -> None:
        if member.size <= MAX_NOTE and member.name.lower().endswith((".json", ".cls")):
            file.seek(member.offset)
            notes[member] = file.read(member.size)

    return visit
