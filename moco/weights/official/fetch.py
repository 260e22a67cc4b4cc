"""Released weights from the authors' server into a cache: once, whole, and checked."""

import fcntl
import hashlib
import http.client
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moco.files import sweep, write_atomically, write_json
from moco.weights.loaded import WeightsError
from moco.weights.official.released import Released

BLOCK = 2**20  # [bytes] read at a time
PATIENCE = 60.0  # [s] without a byte


def cache() -> Path:
    """The folder that fetched files are kept in: $MOCO_CACHE, or ~/.cache/moco."""
    return Path(os.environ.get("MOCO_CACHE") or Path.home() / ".cache" / "moco")


def fetch(one: Released, *, folder: Path | None = None) -> Path:
    """The file, fetched if it is not in `folder` (None: the cache); what it is and on what terms is told on stderr.

    It appears under its name only when it is whole. Beside it stands what it was then (NAME.json: address, SHA-256, and
    whether a published checksum agreed), and it is compared with that each time.

    Raises:
        WeightsError: it cannot be had, or is not what it was or should be. Nothing half is left.
    """
    folder = cache() if folder is None else folder
    file = folder / f"{one.name.partition(':')[2]}.pth.tar"
    record = file.with_name(f"{file.name}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if file.exists() and record.exists():
                _check(file, json.loads(record.read_bytes()))
            else:
                sweep(folder)
                write_json(record, _download(one, file))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a record that is not JSON
        if isinstance(error, WeightsError):
            raise
        reason = str(error) or type(error).__name__
        raise WeightsError(
            f"{one.name} could not be fetched from {one.address} into {folder} ({reason}). Nothing was kept: check the "
            "connection, or fetch it by other means and give the file"
        ) from None
    return file


def _download(one: Released, file: Path) -> dict[str, Any]:
    """Fetch it under its name. Returns what it is."""
    print(f"fetching {one.name} from {one.address}; licence: {one.licence}", file=sys.stderr)
    md5 = hashlib.md5(usedforsecurity=False)

    def receive(out: IO[bytes]) -> None:
        with urllib.request.urlopen(one.address, timeout=PATIENCE) as response:
            expected, received = response.headers.get("Content-Length"), 0
            while block := response.read(BLOCK):
                out.write(block)
                md5.update(block)
                received += len(block)
        if expected is not None and received != int(expected):
            raise OSError(f"the connection ended after {received:,} of {int(expected):,} bytes")
        if one.md5 is not None and not md5.hexdigest().startswith(one.md5):
            raise OSError(f"its MD5 begins with {md5.hexdigest()[:8]}, and the published one with {one.md5}")

    sha256 = write_atomically(file, receive)
    checked = (
        f"its MD5 begins with {one.md5}, as published"
        if one.md5
        else f"no checksum is published; its SHA-256, {sha256}, is noted beside it and compared from now on"
    )
    print(f"fetched to {file}: {checked}", file=sys.stderr)
    return {"name": one.name, "address": one.address, "licence": one.licence, "sha256": sha256, "md5": md5.hexdigest(),
            "checked": checked}  # fmt: skip


def _check(file: Path, record: dict[str, Any]) -> None:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != record.get("sha256"):
        raise WeightsError(
            f"{file} is not what was fetched: its SHA-256 is {digest}, expected {record.get('sha256')}. Remove it and "
            "its .json, and it will be fetched again"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into `folder`: of many ranks, one does, and the others find it there."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
