"""Check images before a run: which are bad, duplicated or odd, and whether a run can start."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from moco.data.check.inspect_file import Inspection, inspect_opened
from moco.data.check.near_duplicates import find_near
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.prefetch import prefetch_items
from moco.data.loader.threads import in_order
from moco.data.sources.encoded import EncodedImages
from moco.data.sources.folder import Folder
from moco.data.sources.skipped import Skipped
from moco.text import escape, first_few

MIN_IMAGES = 16  # good images that a run needs; as recipes.auto.MIN_IMAGES
SMALL_SIDE = 48  # [pixels] for which the recipes without blur are made: CIFAR-10 has 32
GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}  # of Pillow
AHEAD = 64  # images of a store that are read ahead
SIDES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # [pixels] bounds in the table of shorter sides


@dataclass(frozen=True)
class Report:
    """What was found in the images. Images have the names that the files of a run use."""

    names: list[str]
    inspections: list[Inspection]
    limit: int  # bad images that a run tolerates
    near: list[list[int]] | None  # groups of near-duplicates; None: not searched for
    skipped: Skipped
    changed: list[str] = field(default_factory=list)  # sentences about files that differ from the list of checksums

    @property
    def bad(self) -> dict[str, str]:
        """Name -> reason."""
        return {name: one.bad for name, one in zip(self.names, self.inspections, strict=True) if one.bad}

    @property
    def good(self) -> list[Inspection]:
        return [one for one in self.inspections if not one.bad]

    @property
    def kinds(self) -> Counter[str]:
        """Format and mode of the good ones."""
        return Counter(one.kind for one in self.good)

    @property
    def sides(self) -> dict[str, int]:
        """Number of good images by the length of their shorter side."""
        place = np.searchsorted(SIDES, [min(one.size) for one in self.good], side="right")
        labels = [f"below {SIDES[0]}", *(f"{low} to {2 * low - 1}" for low in SIDES[:-1]), f"{SIDES[-1]} or more"]
        counts = np.bincount(place, minlength=len(labels)).tolist()
        return {label: count for label, count in zip(labels, counts, strict=True) if count}

    @property
    def odd(self) -> dict[str, list[str]]:
        """What is odd -> names, the most frequent first."""
        found: dict[str, list[str]] = {}
        for name, one in zip(self.names, self.inspections, strict=True):
            for what in one.odd:
                found.setdefault(what, []).append(name)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    @property
    def same(self) -> list[list[int]]:
        """Groups of files with the same bytes."""
        groups: dict[bytes, list[int]] = {}
        for i, one in enumerate(self.inspections):
            if one.digest:
                groups.setdefault(one.digest, []).append(i)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def views(self) -> list[str]:
        """Which views suit these images (`moco pretrain --views`), and why; empty where the recipe's own do."""
        if not self.good:
            return []
        grey = all(kind.split()[-1] in GREY_MODES for kind in self.kinds)
        small = float(np.median([min(one.size) for one in self.good])) <= SMALL_SIDE
        return [
            *(["--views xray, microscopy or thermal: all images are grey, and hue needs colours"] if grey else []),
            *(
                [f"--views small: half of the images have at most {SMALL_SIDE} pixels, too few to blur"]
                if small
                else []
            ),
        ]

    @property
    def unfit(self) -> list[str]:
        """Why a run should not start; empty when it may."""
        why = list(self.changed)
        if len(self.bad) > self.limit:
            why.append(f"{len(self.bad):,} of {len(self.names):,} images are bad, more than the {self.limit:,} allowed")
        if len(self.good) < MIN_IMAGES:
            why.append(f"{len(self.good)} images are good, and pre-training expects at least {MIN_IMAGES}")
        return why

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        groups = [self.same, self.near or []]
        same, near = ([[self.names[i] for i in group] for group in some] for some in groups)
        sizes = [one.size for one in self.good]
        return {
            "images": len(self.names), "fit": not self.unfit, "unfit": self.unfit, "bad_allowed": self.limit,
            "bad": self.bad, "kinds": dict(self.kinds), "shorter_sides": self.sides,
            "smallest": min(sizes, key=min, default=None), "largest": max(sizes, key=min, default=None),
            "odd": self.odd, "same_bytes": same, "near_duplicates": None if self.near is None else near,
            "skipped": dict(self.skipped.counts), "views": self.views,
        }  # fmt: skip

    def __str__(self) -> str:
        """For people: counts, and the first names of each kind."""
        near = ["not searched for: add --duplicates"] if self.near is None else self._groups(self.near)
        lines = [
            ("images", [f"{len(self.names):,}, {len(self.bad):,} of them bad; a run tolerates {self.limit:,}"]),
            ("bad", _first_lines([f"{escape(name)}: {escape(reason)}" for name, reason in self.bad.items()])),
            ("kinds", _first_lines([f"{count:,} x {kind}" for kind, count in self.kinds.most_common()])),
            ("shorter side", [f"{count:,} x {side} pixels" for side, count in self.sides.items()]),
            (
                "odd",
                _first_lines([f"{len(some):,} {escape(what)}: {first_few(some)}" for what, some in self.odd.items()]),
            ),
            ("same bytes", self._groups(self.same)),
            ("near-duplicates", near),
            ("views", self.views),
            ("skipped", [str(self.skipped)] if self.skipped.counts else []),
            ("verdict", [f"not fit for a run: {why}" for why in self.unfit] or ["fit for a run"]),
        ]
        width = max(len(title) for title, _ in lines)
        rows = [(title if not i else "", line) for title, found in lines for i, line in enumerate(found)]
        return "\n".join(f"{title:<{width}}  {line}" for title, line in rows)

    def _groups(self, groups: list[list[int]]) -> list[str]:
        if not groups:
            return ["none"]
        spare, lines = sum(len(group) - 1 for group in groups), list[str]()
        for group in groups:
            names = [escape(self.names[i]) for i in group[:4]] + (["..."] if len(group) > 4 else [])
            lines.append(" = ".join(names))
        return [f"{spare:,} to remove, if one of each group is kept", *_first_lines(lines)]


def check(
    images: Folder | EncodedImages,
    *,
    near_duplicates: bool = False,
    deep: bool = False,
    max_bad: float | None = None,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Read every image. Nothing is written.

    Args:
        near_duplicates: also search for images that are nearly the same.
        deep: also report damage in JPEG files that decoders tolerate.
        max_bad: as for a run (`Quarantine`).
        workers: threads that read.
        progress: called now and then with the number of images read.

    Raises:
        DataError: a `max_bad` that is no number of images and no share.
    """
    limit = Quarantine(None, max_bad, len(images)).limit

    def inspect(index: int, stopped: Event) -> Inspection:
        return inspect_opened(lambda: images.open(index), images.names[index], compare=near_duplicates, deep=deep)

    inspections = []
    coming = prefetch_items(images, range(len(images)), lambda index: [index], ahead=AHEAD)
    for one in in_order(inspect, coming, workers=workers):
        inspections.append(one)
        if progress and len(inspections) % 100 == 0:
            progress(len(inspections))
    groups = _near(inspections) if near_duplicates else None
    return Report(list(images.names), inspections, limit, groups, getattr(images, "skipped", Skipped()))


def _near(inspections: list[Inspection]) -> list[list[int]]:
    """Groups of near-duplicates. Of files with the same bytes, only the first takes part."""
    first = {one.digest: i for i, one in reversed(list(enumerate(inspections)))}
    chosen = [
        (i, one.signature) for i, one in enumerate(inspections) if one.signature is not None and first[one.digest] == i
    ]
    if not chosen:
        return []
    indices, signatures = zip(*chosen, strict=True)
    hashes, thumbnails = zip(*signatures, strict=True)
    return [[indices[i] for i in group] for group in find_near(np.array(hashes, dtype=np.uint64), np.stack(thumbnails))]


def _first_lines(lines: list[str], most: int = 10) -> list[str]:
    return lines[:most] + ([f"and {len(lines) - most:,} more: --json has all"] if len(lines) > most else [])
