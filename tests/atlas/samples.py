"""Pictures with features made of numbers: an atlas needs no encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from moco.atlas.collection import normalize_rows


def clustered(n: int, *, dim: int = 24, kinds: int = 6, noise: float = 0.3) -> np.ndarray:
    """Features around a centre for each kind, kinds in turn."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(kinds, dim))[np.arange(n) % kinds] + noise * rng.normal(size=(n, dim))
    return normalize_rows(x.astype(np.float32))


def make_embedded(
    folder: Path, n: int, *, names: Sequence[str] | None = None, x: np.ndarray | None = None
) -> tuple[Path, Path]:
    """A file of features as `moco embed` writes it, and the folder of its pictures in 6 colours."""
    data, rng = folder / "data", np.random.default_rng(1)
    names = [f"class{i % 6}/{i:05d}.png" for i in range(n)] if names is None else names
    colours = rng.integers(0, 256, (6, 3))
    for i, name in enumerate(names):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), tuple(int(v) for v in colours[i % 6])).save(data / name, "PNG")
    np.save(folder / "x.npy", clustered(n) if x is None else x)
    (folder / "x.names.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "x.npy", data
