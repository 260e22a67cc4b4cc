"""The demo's images: a zip file in the package, unpacked once into a cache and then read as a folder."""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path, PurePosixPath

from moco.files import cache_folder

ARCHIVE = "fashion-mnist-placed.zip"  # benchmarks/make_demo_data.py made it
SHA256 = "94e27c627244cfc4d0e6c185a243ffa91a8f7321f11bfe15635fa1bc65f7cf02"
LONG_AGO = 315_532_800  # [seconds since 1970] 1980-01-01, the date of the files


def demo_data(cache: Path | None = None) -> Path:
    """The folder with `train/CLASS/INDEX.png` (12,000 pictures) and `test/CLASS/INDEX.png` (2,000), 32 x 32, grey.

    Args:
        cache: where folders are unpacked; by default `momentum-contrast` in XDG_CACHE_HOME or ~/.cache.

    Raises:
        RuntimeError: the archive of this installation is damaged.
        OSError: the cache cannot be written.
    """
    folder = (cache or cache_folder()) / f"demo-{SHA256[:8]}"
    packed = (resources.files("moco") / "data" / "demo" / ARCHIVE).read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise RuntimeError(f"the demo's images ({ARCHIVE}) are damaged in this installation. Install the package again")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        if not _is_whole(folder, archive):
            unpack(archive, folder)
    return folder


def _is_whole(folder: Path, archive: zipfile.ZipFile) -> bool:
    """Whether the pictures in `folder` are exactly the archive's, each with its size."""
    there = {
        Path(root, name).relative_to(folder).as_posix(): os.stat(os.path.join(root, name)).st_size
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    }
    return there == {member.filename: member.file_size for member in archive.infolist()}


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack `archive` into `folder`, whole or not at all. A `folder` with any other content is replaced.

    It is unpacked beside `folder` and renamed, so that no process sees half of it; of several processes one succeeds.
    Every file gets the same date, so that a run can resume after the cache was made again.

    Raises:
        ValueError: a member would be written outside of `folder`.
    """
    targets = {member: _safe(member.filename) for member in archive.infolist()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch, "new")
        for member, name in targets.items():
            target = made / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            os.utime(target, (LONG_AGO, LONG_AGO))
        if not _is_whole(folder, archive):  # another process may have unpacked it meanwhile
            with contextlib.suppress(FileNotFoundError):
                folder.rename(Path(scratch, "old"))
            with contextlib.suppress(OSError):  # another process was faster: see below
                made.rename(folder)
        if not _is_whole(folder, archive):
            raise OSError(f"could not unpack the demo's images into {folder}: is another program writing there?")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise ValueError(f"expected a file name inside of the archive, got {name!r}")
    return path
