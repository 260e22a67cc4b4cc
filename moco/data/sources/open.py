"""DATA of any kind as a sequence of images: a new kind of source is a file of its own, and a line here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from moco.data.sources.background_scan import Ahead
from moco.data.sources.folder import find_images
from moco.data.sources.images import Images
from moco.data.sources.torch_dataset import Wrapped

Sources = str | Path | Sequence[str | Path] | Ahead | Images | Dataset[Any]


def open_images(data: Sources) -> Images:
    """Folders and list files as one sequence of images; a Dataset wrapped; Images as they are."""
    if isinstance(data, Ahead):
        return data.find()
    if isinstance(data, str | Path):
        return find_images([data])
    if isinstance(data, Dataset):
        return Wrapped(data)  # pyright: ignore[reportReturnType]  # its labels are computed when asked for
    if isinstance(data, Sequence) and all(isinstance(one, str | Path) for one in data):
        return find_images(data)
    return data  # pyright: ignore[reportReturnType]
