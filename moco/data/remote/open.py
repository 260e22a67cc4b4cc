"""URLs as DATA: folders, lists and shards."""

import itertools
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from moco.data.decode.decode import EXTENSIONS
from moco.data.remote.folder import Found, join_remote_folders, look_up, of_folder, of_list
from moco.data.remote.reader import Reader
from moco.data.remote.shards import RemoteShards
from moco.data.remote.store import SIZE_UNKNOWN, ByteRange, StoredObject
from moco.data.remote.urls import check_url, folder_of, is_url, path_in, public, scheme_of
from moco.data.sources.folder import SHARD_SUFFIX, Source
from moco.data.sources.images import DataError, Images, LabelCodes
from moco.data.sources.path_list import LIST_SUFFIXES, lists_urls
from moco.data.sources.skipped import Skipped
from moco.text import escape


def open_remote(sources: Sequence[str | Path], *, single: bool = False) -> Images:
    """The images of URLs: folders, lists and shards, and of list files whose lines are URLs.

    Args:
        single: an image given by its own URL is a source too.

    Raises:
        DataError: a URL that cannot be read, holds no image, or overlaps another; paths beside URLs; several stores.
        StoreError: a store that does not answer.
    """
    _check(sources)
    urls = [one for one in sources if is_url(one)]
    reader = Reader(scheme_of(str(urls[0]))) if urls else None
    skipped, found, shards = Skipped(), list[Found](), list[StoredObject]()
    for source in sources:
        what = path_in(str(source)).lower() if is_url(source) else str(source).lower()
        if what.endswith(LIST_SUFFIXES):
            one, reader = of_list(str(source), _content_of(source, reader))
            found.append(one)
            continue
        assert isinstance(source, str)
        assert reader is not None
        if what.endswith(SHARD_SUFFIX):
            shards += look_up([StoredObject(source, SIZE_UNKNOWN, 0)], reader, missing := [])
            if missing:
                raise DataError(f"{public(source)} does not exist: check the address")
        elif single and what.endswith(EXTENSIONS):
            found.append(_one_image(source))
        elif tars := _tars_in(entries := _objects(source, reader), source):
            shards += look_up(tars, reader)
        else:
            found.append(of_folder(source, entries, skipped, reader))
    if shards and found:
        raise DataError("expected shards (tar files) only, or folders and lists only")
    assert reader is not None
    return RemoteShards(shards, reader) if shards else join_remote_folders(found, _prefixes(sources), skipped, reader)


def folders_of(url: str) -> list[str]:
    """Names of the folders directly in a folder, sorted; none where there are none. Raises DataError, StoreError."""
    check_url(url)
    if path_in(url).lower().endswith((*LIST_SUFFIXES, SHARD_SUFFIX)):
        return []
    return Reader(scheme_of(url)).store.list_folders(url)


def _check(sources: Sequence[str | Path]) -> None:
    """Raise DataError for sources that cannot be read together."""
    for one in sources:
        if is_url(one):
            check_url(str(one))
        elif not lists_urls(one):
            raise DataError(
                f"expected URLs only, or paths only; {escape(str(one))} is a path: give one of the two kinds"
            )
    schemes = {scheme_of(str(one)) for one in sources if is_url(one)}
    if len(schemes) > 1 and schemes != {"http", "https"}:
        raise DataError(f"expected URLs of one store, got {', '.join(sorted(schemes))}: make a list of URLs for each")
    places = sorted(public(str(one)).rstrip("/") + "/" for one in sources)
    for outer, inner in itertools.pairwise(places):
        if inner.startswith(outer):
            raise DataError(f"{inner[:-1]} lies in {outer[:-1]} or is the same, so its images would count twice")


def _content_of(source: str | Path, reader: Reader | None) -> bytes:
    """The content of a list. Raises DataError."""
    if not is_url(source):
        return Path(source).read_bytes()
    assert reader is not None
    try:
        return reader.store.read(ByteRange(str(source), SIZE_UNKNOWN, 0))
    except FileNotFoundError:
        raise DataError(f"{public(str(source))} does not exist: check the address") from None


def _objects(folder: str, reader: Reader) -> list[StoredObject]:
    """The objects below a folder. Raises DataError if there is no such folder."""
    if "?" in folder and path_in(folder) != folder.partition("://")[2].partition("/")[2]:
        raise DataError(f"{public(folder)}: a folder's URL cannot have a query (?...): give a list of URLs")
    try:
        return list(reader.store.find(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{public(folder)} does not exist: give the URL of a folder, a list or a tar file") from None


def _tars_in(entries: Iterable[StoredObject], folder: str) -> list[StoredObject]:
    """The tar files directly in a folder, sorted, if it has neither images nor folders; else none."""
    base = path_in(folder).rstrip("/")
    start = len(base) + 1 if base else 0
    tars: list[tuple[str, StoredObject]] = []
    for entry in entries:
        name = path_in(entry.url)[start:]
        if name.startswith(".") or not name:
            continue
        if "/" in name or name.lower().endswith(EXTENSIONS):
            return []
        if name.endswith(SHARD_SUFFIX):
            tars.append((name, entry))
    return [entry for _, entry in sorted(tars, key=lambda one: one[0].encode("utf-8", "surrogateescape"))]


def _one_image(url: str) -> Found:
    """An image that was given by its own URL."""
    source = Source(public(folder_of(url)), "", True)
    return Found(source, [posixpath.basename(path_in(url))], [StoredObject(url, SIZE_UNKNOWN, 0)], LabelCodes.none(1))


def _prefixes(sources: Sequence[str | Path]) -> list[str]:
    """The prefix of the names of each source's images: none for one source, otherwise its own name, made unique."""
    if len(sources) == 1:
        return [""]
    times: Counter[str] = Counter()
    prefixes = []
    for source in sources:
        path = path_in(str(source)) if is_url(source) else str(source)
        name = posixpath.basename(path.rstrip("/")) or str(source).partition("://")[2].partition("/")[0]
        one_image = name.lower().endswith(EXTENSIONS)
        if name.lower().endswith(LIST_SUFFIXES):
            name = posixpath.splitext(name)[0]
        times[name] += 1
        first, later = ("", f"~{times[name]}/") if one_image else (f"{name}/", f"{name}~{times[name]}/")
        prefixes.append(first if times[name] == 1 else later)
    return prefixes
