"""Which images a tar file in the layout of WebDataset has, with their names and labels.

Files with the same name up to the first dot after the last slash are one sample: `001.jpg`, `001.cls`, `001.json`.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from moco.data.decode.decode import EXTENSIONS, MAX_FILE_BYTES
from moco.data.shards.scan_tar import Member, Scan

MAX_NOTE = 2**16  # [bytes] of a file with a label or with JSON that is read
LABEL_FIELDS = ("label", "class", "cls")  # of a sample's JSON
PACK_MARK = "moco_pack"  # the field of a sample's JSON that says that `moco pack` wrote it


class Sample(NamedTuple):
    """An image in a shard."""

    name: str
    offset: int  # [bytes]
    size: int  # [bytes]
    mtime: int  # [ns]
    label: str | None


def samples_of(path: Path, scan: Scan) -> Iterator[Sample]:
    """The images among the members of the tar file `path`. An empty or a too large one is left out as damaged."""
    with path.open("rb") as file:

        def read(member: Member) -> bytes:
            return os.pread(file.fileno(), member.size, member.offset)

        yield from samples_in(path.stem, scan, read)


def samples_in(shard: str, scan: Scan, read: Callable[[Member], bytes]) -> Iterator[Sample]:
    """As `samples_of`, of a shard of this name whose labels are read by `read`."""
    for _, group in itertools.groupby(scan.members, key=lambda member: _split(member.name)[0]):
        yield from _images_of(shard, list(group), read, scan)


def _images_of(shard: str, group: list[Member], read: Callable[[Member], bytes], scan: Scan) -> Iterator[Sample]:
    notes = {_split(member.name)[1]: member for member in group if member.size <= MAX_NOTE}
    facts = _parsed(read(notes["json"])) if "json" in notes else {}
    label = _label(facts, notes, read)
    for member in group:
        if not member.name.lower().endswith(EXTENSIONS):
            continue
        if not 0 < member.size <= MAX_FILE_BYTES:
            scan.damage.append(f"{member.name!a}: {member.size:,} bytes, expected 1 to {MAX_FILE_BYTES:,}")
            continue
        if facts.get(PACK_MARK) and isinstance(facts.get("name"), str):
            mtime = facts.get("mtime")
            whole = mtime if isinstance(mtime, int) and 0 <= mtime < 2**63 else member.mtime * 10**9
            yield Sample(facts["name"], member.offset, member.size, whole, label)
        else:
            first = member.name.strip("./").partition("/")
            own = label if label is not None else first[0] if first[1] else None
            yield Sample(f"{shard}/{member.name}", member.offset, member.size, member.mtime * 10**9, own)


def _split(name: str) -> tuple[str, str]:
    """`a/b/001.seg.png` -> `a/b/001`, `seg.png`."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _label(facts: dict[str, Any], notes: dict[str, Member], read: Callable[[Member], bytes]) -> str | None:
    """The label: of `.json` if it has one, else the text of `.cls`."""
    for field in LABEL_FIELDS:
        if isinstance(facts.get(field), str | int):
            return str(facts[field])
    if facts.get(PACK_MARK) or "cls" not in notes:
        return None
    text = read(notes["cls"]).decode("utf-8", "replace").strip()
    return text or None
