"""Tar files for tests, made with the standard library."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(value: int, side: int = 12) -> bytes:
    """A PNG file of noise that depends on `value`."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], *, kind: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_600_000_000
            archive.addfile(info, io.BytesIO(content))
    return path
