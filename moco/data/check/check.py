"""Images looked at before a run: which are bad, which come twice, what is odd, and whether a run can begin."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from moco.data.check.inspect_file import Look, look
from moco.data.check.near_duplicates import near
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.threads import in_order
from moco.data.sources.folder import Folder
from moco.data.sources.skipped import Skipped
from moco.text import shown

FEWEST = 16  # good images that a run needs: recipes.auto.FEWEST
SOME = 3  # names that are shown of each kind
SIDES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # [pixels] bounds in the table of shorter sides


@dataclass(frozen=True)
class Report:
    """What was found in the images of a folder. Names of images are those of a run's files."""

    names: list[str]
    looks: list[Look]
    limit: int  # bad images that a run tolerates
    near: list[list[int]] | None  # groups of near-duplicates; None when they were not looked for
    skipped: Skipped
    changed: list[str] = field(default_factory=list)  # sentences about what is not as it was listed

    @property
    def bad(self) -> dict[str, str]:
        """Name -> reason."""
        return {name: one.bad for name, one in zip(self.names, self.looks, strict=True) if one.bad}

    @property
    def good(self) -> list[Look]:
        return [one for one in self.looks if not one.bad]

    @property
    def kinds(self) -> Counter[str]:
        """Format and mode of the good ones."""
        return Counter(one.kind for one in self.good)

    @property
    def sides(self) -> dict[str, int]:
        """How many good ones have a shorter side of how many pixels."""
        place = np.searchsorted(SIDES, [min(one.size) for one in self.good], side="right")
        labels = [f"below {SIDES[0]}", *(f"{low} to {2 * low - 1}" for low in SIDES[:-1]), f"{SIDES[-1]} or more"]
        counts = np.bincount(place, minlength=len(labels)).tolist()
        return {label: count for label, count in zip(labels, counts, strict=True) if count}

    @property
    def odd(self) -> dict[str, list[str]]:
        """What is odd -> names, the most frequent first."""
        found: dict[str, list[str]] = {}
        for name, one in zip(self.names, self.looks, strict=True):
            for what in one.odd:
                found.setdefault(what, []).append(name)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    @property
    def same(self) -> list[list[int]]:
        """Groups of files with the same bytes."""
        groups: dict[bytes, list[int]] = {}
        for i, one in enumerate(self.looks):
            if one.digest:
                groups.setdefault(one.digest, []).append(i)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def unfit(self) -> list[str]:
        """Why a run should not begin; nothing when it may."""
        why = list(self.changed)
        if len(self.bad) > self.limit:
            why.append(f"{len(self.bad):,} of {len(self.names):,} images are bad, more than the {self.limit:,} allowed")
        if len(self.good) < FEWEST:
            why.append(f"{len(self.good)} images are good, and pre-training expects at least {FEWEST}")
        return why

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        groups = [self.same, self.near or []]
        same, twins = ([[self.names[i] for i in group] for group in some] for some in groups)
        sizes = [one.size for one in self.good]
        return {
            "images": len(self.names), "fit": not self.unfit, "unfit": self.unfit, "bad_allowed": self.limit,
            "bad": self.bad, "kinds": dict(self.kinds), "shorter_sides": self.sides,
            "smallest": min(sizes, key=min, default=None), "largest": max(sizes, key=min, default=None),
            "odd": self.odd, "same_bytes": same, "near_duplicates": None if self.near is None else twins,
            "skipped": dict(self.skipped.counts),
        }  # fmt: skip

    def __str__(self) -> str:
        """For people: some of the names, and numbers of all."""
        near = ["not looked for: add --duplicates"] if self.near is None else self._groups(self.near)
        lines = [
            ("images", [f"{len(self.names):,}, {len(self.bad):,} of them bad; a run tolerates {self.limit:,}"]),
            ("bad", _some([f"{shown(name)}: {shown(reason)}" for name, reason in self.bad.items()])),
            ("kinds", _some([f"{count:,} x {kind}" for kind, count in self.kinds.most_common()])),
            ("shorter side", [f"{count:,} x {side} pixels" for side, count in self.sides.items()]),
            ("odd", _some([f"{len(names):,} {shown(what)}: {_names(names)}" for what, names in self.odd.items()])),
            ("same bytes", self._groups(self.same)),
            ("near-duplicates", near),
            ("skipped", [str(self.skipped)] if self.skipped.counts else []),
            ("verdict", [f"not fit for a run: {why}" for why in self.unfit] or ["fit for a run"]),
        ]
        width = max(len(title) for title, _ in lines)
        rows = [(title if not i else "", line) for title, found in lines for i, line in enumerate(found)]
        return "\n".join(f"{title:<{width}}  {line}" for title, line in rows)

    def _groups(self, groups: list[list[int]]) -> list[str]:
        spare = sum(len(group) - 1 for group in groups)
        some = [" = ".join(shown(self.names[i]) for i in group[:4]) + " = ..." * (len(group) > 4) for group in groups]
        return [f"{spare:,} to remove, if one of each group is kept", *_some(some)] if groups else ["none"]


def check(
    folder: Folder,
    *,
    near_duplicates: bool = False,
    deep: bool = False,
    max_bad: float | None = None,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Read every image of `folder`. Nothing is written.

    Args:
        near_duplicates: also look for pictures that are nearly the same.
        deep: also look for damage that decoders pass over, in JPEG files.
        max_bad: as for a run (`Quarantine`).
        workers: threads that read.
        progress: is called with the number of images read, now and then.

    Raises:
        DataError: a `max_bad` that makes no sense.
    """
    limit = Quarantine(None, max_bad, len(folder)).limit

    def seen(index: int, gone: Event) -> Look:
        return look(folder.path(index), compare=near_duplicates, deep=deep)

    looks = []
    for one in in_order(seen, range(len(folder)), workers=workers):
        looks.append(one)
        if progress and len(looks) % 100 == 0:
            progress(len(looks))
    twins = _near(looks) if near_duplicates else None
    return Report(list(folder.names), looks, limit, twins, folder.skipped)


def _near(looks: list[Look]) -> list[list[int]]:
    """Groups of near-duplicates, of files with the same bytes only the first, and none of one colour."""
    first = {one.digest: i for i, one in reversed(list(enumerate(looks)))}
    chosen = [(i, one.twin) for i, one in enumerate(looks) if one.twin is not None and first[one.digest] == i]
    if not chosen:
        return []
    indices, twins = zip(*chosen, strict=True)
    signs, greys = zip(*twins, strict=True)
    return [[indices[i] for i in group] for group in near(np.array(signs, dtype=np.uint64), np.stack(greys))]


def _names(names: list[str]) -> str:
    return ", ".join(map(shown, names[:SOME])) + ", ..." * (len(names) > SOME)


def _some(lines: list[str], most: int = 10) -> list[str]:
    return lines[:most] + ([f"and {len(lines) - most:,} more: --json has all"] if len(lines) > most else [])
