"""SHA-256 of files, as lists that `sha256sum --check` reads too: what finds damage that still decodes."""

import os
from collections.abc import Mapping
from pathlib import Path

from moco.data.sources.images import DataError
from moco.files import check_writable, write_atomically
from moco.text import escape, first_few


def write_digests(digests: Mapping[str, bytes], file: Path) -> None:
    """A line `HEX  NAME` for each; in names with a line end or a backslash these are escaped. Raises OSError."""
    lines = []
    for name, digest in digests.items():
        safe = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if safe == name else chr(92)}{digest.hex()}  {safe}\n")
    write_atomically(file, lambda out: out.write("".join(lines).encode("utf-8", "surrogateescape")))


def check_list_replaceable(file: Path) -> None:
    """Raise DataError if `file` exists and is not a list that `write_digests` has written.

    Raises PermissionError if its folder is not writable.
    """
    check_writable(file)
    if not os.path.lexists(file):
        return
    reason = DataError(
        f"{escape(os.fspath(file))} exists and is not a list of checksums, so it is not replaced: give another name"
    )
    if not file.is_file():
        raise reason
    try:
        read_digests(file)
    except DataError:
        raise reason from None


def read_digests(file: Path) -> dict[str, bytes]:
    """Name -> SHA-256. Raises OSError, and DataError for what is no such list."""
    found = {}
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        digest, gap, name = line.removeprefix(b"\\").decode("utf-8", "surrogateescape").partition("  ")
        if not gap or len(digest) != 64:
            raise DataError(
                f"line {number} of {escape(os.fspath(file))}: expected a SHA-256 and a name, as sha256sum writes"
            )
        try:
            found[_unescaped(name) if line.startswith(b"\\") else name] = bytes.fromhex(digest)
        except ValueError as error:
            raise DataError(f"line {number} of {escape(os.fspath(file))}: not a SHA-256: {error}") from error
    return found


def _unescaped(name: str) -> str:
    return name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")


def digest_changes(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[str]:
    """A sentence for each way in which files are not what they were."""
    kinds = {
        "changed": [name for name in before if name in now and now[name] != before[name]],
        "are gone": [name for name in before if name not in now],
        "are new": [name for name in now if name not in before],
    }
    return [f"{len(names):,} {what}: {first_few(names)}" for what, names in kinds.items() if names]
