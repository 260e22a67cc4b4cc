"""`moco dedup`: groups of near-duplicates, and the list of images to keep."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moco.atlas.calibrate import Calibration
from moco.atlas.collection import DataSources, open_collection
from moco.atlas.duplicates import check_threshold, find_near_duplicates
from moco.evaluate.progress import Progress
from moco.text import plural

SHOWN_GROUPS, SHOWN_IMAGES = 20, 5  # in the text


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among images. No file is changed."""

    images: int
    threshold: float
    method: str  # "exact", or how candidates were found
    groups: Sequence[Sequence[tuple[str, float]]]  # path and similarity to the first, which is the one to keep
    keep: Sequence[str]  # paths: all images but the others of groups
    calibration: Calibration | None = None  # of the threshold; None: it was given, or there was no encoder

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        groups = [[{"path": path, "similarity": value} for path, value in group] for group in self.groups]
        return {
            "images": self.images, "threshold": self.threshold, "method": self.method, "kept": len(self.keep),
            "groups": groups, "calibration": None if self.calibration is None else asdict(self.calibration),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = list[str]()
        for group in self.groups[:SHOWN_GROUPS]:
            lines += [f"keep    {group[0][0]}", *(f"{value:.4f}  {path}" for path, value in group[1:SHOWN_IMAGES])]
            if len(group) > SHOWN_IMAGES:
                lines.append(f"        and {len(group) - SHOWN_IMAGES:,} more")
        if len(self.groups) > SHOWN_GROUPS:
            lines.append(f"and {plural(len(self.groups) - SHOWN_GROUPS, 'more group')}: --json has all")
        counts = (self.images - len(self.keep), "near-duplicate"), (self.images, "image"), (len(self.groups), "group")
        spare, images, groups = (plural(count, unit) for count, unit in counts)
        lines.append(f"{spare} in {groups}, of {images} (similarity at least {self.threshold:g}, {self.method})")
        if self.calibration is not None:
            lines.append(f"Threshold {self.threshold:g}: {self.calibration}")
        return "\n".join(lines)


def dedup(
    source: str | Path,
    data: DataSources | None = None,
    *,
    threshold: float | None = None,
    exact: bool | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Duplicates:
    """Near-duplicates among the images, by their features.

    Args:
        source: a file of `moco embed`, or weights with `data`.
        threshold: least cosine similarity of whitened features. None: the one that tells planted copies from other
            images best; 0.95 for a file of features.
        exact: compare all pairs. None: up to 50,000 images, and wherever faiss is not installed.

    Raises:
        RecipeError: a threshold outside (0, 1]. DataError, RecipeError: as of `open_collection`.
    """
    check_threshold(threshold)
    collection = open_collection(
        source, data, device=device, workers=workers, max_bad=max_bad, say=say, progress=progress
    )
    found = find_near_duplicates(collection, threshold=threshold, exact=exact, progress=progress)
    dropped = {row for group in found.groups for row in group.others}
    groups = [
        [(collection.path(group.keep), 1.0)]
        + [(collection.path(row), value) for row, value in zip(group.others, group.similarities, strict=True)]
        for group in found.groups
    ]
    keep = [collection.path(row) for row in range(len(collection)) if row not in dropped]
    return Duplicates(len(collection), found.threshold, found.method, groups, keep, found.calibration)
