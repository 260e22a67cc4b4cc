"""Download released weights from the authors' server into a cache, once, and check them."""

import fcntl
import hashlib
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from moco.files import remove_temporary_files, temporary_name, write_atomically, write_json
from moco.weights.copy_weights import check_values_of_parts
from moco.weights.file_kind import kind_of
from moco.weights.loaded_weights import WeightsError
from moco.weights.official.released import LINEAR_PROBE, Released
from moco.weights.parse_content import parse_content
from moco.weights.tensors import read_tensors

BLOCK = 2**20  # [bytes] read at a time
TIMEOUT = 60.0  # [s] without a byte


def cache() -> Path:
    """The folder of downloaded files: $MOCO_CACHE, or ~/.cache/moco."""
    return Path(os.environ.get("MOCO_CACHE") or Path.home() / ".cache" / "moco")


def fetch(one: Released, *, folder: Path | None = None) -> Path:
    """The path of a released file. It is downloaded if `folder` (None: the cache) does not have it.

    A download prints the file's name, address and licence to stderr. The file gets its name only when it is complete
    and holds the expected network. NAME.json beside it records address, SHA-256 and whether a published checksum
    agreed; each later call compares the file with that record.

    Raises:
        WeightsError: the download failed, or the file is not the recorded or expected one. No partial file is left.
    """
    folder = cache() if folder is None else folder
    file = folder / f"{one.name.partition(':')[2]}.pth.tar"
    record = file.with_name(f"{file.name}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if file.exists() and record.exists():
                _check_recorded_hash(file, json.loads(record.read_bytes()))
            else:
                remove_temporary_files(folder)
                write_json(record, _download(one, file))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a record that is not JSON
        if isinstance(error, WeightsError):
            raise
        reason = str(error) or type(error).__name__
        raise WeightsError(
            f"{one.name} could not be downloaded from {one.address} to {folder} ({reason}). No file was saved. Check "
            "the connection, or download it by other means and give the file"
        ) from None
    return file


def _download(one: Released, file: Path) -> dict[str, Any]:
    """Download the file, check it, and move it to its name. Returns the record for NAME.json."""
    print(f"downloading {one.name} from {one.address}; licence {one.licence}", file=sys.stderr)
    aside = temporary_name(file)  # a killed download leaves it, and the next one removes it
    try:
        md5, sha256 = _receive(one, aside)
        check_content(one, aside)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
    checked = (
        f"its MD5 begins with {one.md5}, as published"
        if one.md5
        else f"it holds {one.layout} of {one.network}; no checksum is published, so later calls compare it with its "
        f"present SHA-256, {sha256}"
    )
    print(f"downloaded to {file}: {checked}", file=sys.stderr)
    return {"name": one.name, "address": one.address, "licence": one.licence, "sha256": sha256, "md5": md5,
            "checked": checked}  # fmt: skip


def _receive(one: Released, to: Path) -> tuple[str, str]:
    """Write what the server sends to the file `to`. Returns its MD5 and its SHA-256.

    Raises:
        OSError: there is no connection, fewer bytes came than were promised, or the published MD5 is another.
    """
    md5 = hashlib.md5(usedforsecurity=False)

    def receive(out: IO[bytes]) -> None:
        with urllib.request.build_opener(HttpsOnly).open(one.address, timeout=TIMEOUT) as response:
            expected, received = response.headers.get("Content-Length"), 0
            while block := response.read(BLOCK):
                out.write(block)
                md5.update(block)
                received += len(block)
        if expected is not None and received != int(expected):
            raise OSError(f"the connection ended after {received:,} of {int(expected):,} bytes")
        if one.md5 is not None and not md5.hexdigest().startswith(one.md5):
            raise OSError(f"its MD5 begins with {md5.hexdigest()[:8]}, expected {one.md5} as published")

    sha256 = write_atomically(to, receive)
    return md5.hexdigest(), sha256


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https only: on any other connection the file could be changed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"the server redirects to {newurl}, expected an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_content(one: Released, file: Path) -> None:
    """Raise OSError if the file is not a checkpoint of the expected network and method."""
    try:
        found = parse_content(read_tensors(file), one.name)
    except WeightsError as error:
        reason = str(error).replace(str(file), "it")
        raise OSError(f"the server sent {kind_of(file) or f'no checkpoint: {reason}'}") from None
    try:
        check_values_of_parts(replace(found, f_q=found.backbone))
    except WeightsError as error:
        raise OSError(f"the server sent no sound checkpoint: {str(error).replace(one.name, 'it')}") from None
    network = found.guess.name if found.guess is not None else "an unknown network"
    layout = found.contents.get("layout", "")
    with_classifier = LINEAR_PROBE if "linear classifier" in found.contents else layout
    right = with_classifier == LINEAR_PROBE if one.layout == LINEAR_PROBE else layout.startswith(f"{one.layout} (")
    if network != one.network or not right:
        raise OSError(f"the server sent {layout} of {network}, expected {one.layout} of {one.network}")


def _check_recorded_hash(file: Path, record: dict[str, Any]) -> None:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != record.get("sha256"):
        raise WeightsError(
            f"{file} has changed since its download: its SHA-256 is {digest}, expected {record.get('sha256')}. Remove "
            "it and its .json to download it again"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock `folder` for one process. Of several ranks, the first one downloads, and the others find the file there."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
