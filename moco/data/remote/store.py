"""Read objects of a store by fsspec, with retries. Threads may share a store, and forked processes may use it."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from moco.data.remote.retry import Truncated, retry
from moco.data.remote.urls import WEB, check_url, public, scheme_of
from moco.data.sources.images import DataError

CONNECT, READ = 15.0, 60.0  # [s] until a connection is made, and between two pieces of an answer
SIZE_UNKNOWN = -1  # a size
MOST_FOLDERS = 100_000  # of a web server, against pages that link to each other for ever
DATES = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified", "created")


class StoredObject(NamedTuple):
    """An object of a store."""

    url: str
    size: int  # [bytes]; SIZE_UNKNOWN
    stamp: int  # changes with the content: 63 bits of the ETag's SHA-256, else the date in ns, else 0


class ByteRange(NamedTuple):
    """An object, or a range of its bytes."""

    url: str
    size: int  # [bytes]; SIZE_UNKNOWN
    stamp: int
    offset: int = SIZE_UNKNOWN  # [bytes]; SIZE_UNKNOWN: the whole object


class Changed(ValueError):
    """An object that has another size now than when it was listed."""


class Store:
    """The objects of one scheme. fsspec is opened in each process: its threads do not survive a fork."""

    def __init__(self, scheme: str, *, patience: float):
        self.scheme, self.patience = scheme, patience
        self._opened: tuple[int, Any] | None = None  # id of a process, and its file system

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def read(self, part: ByteRange) -> bytes:
        """The bytes of `part`, all of them.

        Raises:
            FileNotFoundError: there is no such object. Changed: it has another size now. StoreError: see `retry`.
        """
        return retry(lambda: self._read_once(part), part.url, patience=self.patience)

    def look_up(self, url: str) -> StoredObject:
        """Size and stamp of an object. Raises FileNotFoundError, StoreError."""
        info = retry(lambda: self._system(url).info(self._path(url)), url, patience=self.patience)
        return StoredObject(url, _size(info), _stamp(info))

    def find(self, folder: str) -> Iterator[StoredObject]:
        """All objects below `folder`. Those of web servers have no size. Raises FileNotFoundError, StoreError."""
        if self.scheme in WEB:
            yield from self._crawl(folder)
            return
        system, root = self._system(folder), self._path(folder)
        found = retry(lambda: system.find(root, detail=True), folder, patience=self.patience)
        start, base = len(root.rstrip("/")) + 1, folder.rstrip("/")
        for path in sorted(found):
            if len(path) > start and path.startswith(root.rstrip("/") + "/"):
                yield StoredObject(f"{base}/{path[start:]}", _size(found[path]), _stamp(found[path]))

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; none where there is no such folder. Raises StoreError."""
        base = folder.rstrip("/") + "/"
        try:
            rows = self._list(base)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(row["name"]).rstrip("/").rpartition("/")[2] for row in rows if row["type"] == "directory")

    def _crawl(self, root: str) -> Iterator[StoredObject]:
        """The files that the pages of a web server link to, from `root` down. No link leads out of `root`."""
        base = root.rstrip("/") + "/"
        folders, seen = [base], {base}
        while folders:
            here = folders.pop()
            for row in self._list(here):
                url = str(row["name"])
                if not url.startswith(here) or any(mark in url for mark in ("?", "#", "/../")) or url in seen:
                    continue
                seen.add(url)
                if row["type"] == "directory":
                    folders.append(url)
                else:
                    yield StoredObject(url, SIZE_UNKNOWN, 0)
            if len(seen) - len(folders) > MOST_FOLDERS * 100 or len(folders) > MOST_FOLDERS:
                raise DataError(f"{public(root)} has too many folders: give a list of URLs, or shards")

    def _list(self, folder: str) -> list[Mapping[str, Any]]:
        system = self._system(folder)
        return retry(lambda: list(system.ls(self._path(folder), detail=True)), folder, patience=self.patience)

    def _read_once(self, part: ByteRange) -> bytes:
        system, path = self._system(part.url), self._path(part.url)
        if part.offset == SIZE_UNKNOWN:
            content = system.cat_file(path)
        else:
            content = system.cat_file(path, start=part.offset, end=part.offset + part.size)
        if part.size in (SIZE_UNKNOWN, len(content)):
            return content
        if part.offset != SIZE_UNKNOWN and len(content) > part.size:
            raise DataError(
                f"{public(part.url)}: the server sends whole files where a part is asked for (no Range requests), so "
                "its shards cannot be read: use another server, or copy them to a disk"
            )
        if part.offset == SIZE_UNKNOWN and (now := _size(system.info(path))) not in (SIZE_UNKNOWN, part.size):
            raise Changed(f"has {now:,} bytes now; {part.size:,} when it was listed")
        raise Truncated(f"{len(content):,} of {part.size:,} bytes came")

    def _path(self, url: str) -> str:
        return self._system(url)._strip_protocol(url)

    def _system(self, url: str) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open(self.scheme, url)
        return self._opened[1]


def _open(scheme: str, url: str) -> Any:
    """The file system of fsspec for a scheme. Raises DataError without its package."""
    check_url(url)
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in WEB:
        options |= {"client_kwargs": _web_options(), "simple_links": False}  # links of <a href> only
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = {"connect_timeout": CONNECT, "read_timeout": READ, "max_pool_connections": 64}
    return fsspec.filesystem(scheme, **options)


def _web_options() -> dict[str, Any]:
    """Arguments of aiohttp.ClientSession: time limits, no compression, no redirect to a less safe scheme."""
    import aiohttp

    async def check_redirect(session: Any, context: Any, params: Any) -> None:
        to = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
        scheme = scheme_of(to) if "://" in to else params.url.scheme
        if scheme not in WEB or (params.url.scheme == "https" and scheme == "http"):
            raise ValueError(f"redirected from {params.url.scheme}:// to {scheme}://, which is not followed")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check_redirect)
    return {
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ),
        "headers": {"Accept-Encoding": "identity"},
        "trace_configs": [trace],
    }


def _size(info: Mapping[str, Any]) -> int:
    size = info.get("size")
    return int(size) if size is not None else SIZE_UNKNOWN


def _stamp(info: Mapping[str, Any]) -> int:
    tag = info.get("ETag") or info.get("etag")
    if tag:
        plain = str(tag).removeprefix("W/").strip('"')
        return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "little") >> 1
    for field in DATES:
        if (date := info.get(field)) is not None:
            return _nanoseconds(date)
    return 0


def _nanoseconds(date: Any) -> int:
    try:
        if isinstance(date, str):
            date = datetime.fromisoformat(date) if date[:4].isdecimal() else parsedate_to_datetime(date)
        seconds = date.timestamp() if isinstance(date, datetime) else float(date)
    except (ValueError, TypeError):
        return 0
    return max(0, round(seconds * 10**9))
