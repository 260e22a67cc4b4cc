"""Count what a search through folders skips: hidden entries, system folders, files that are no images.

images = find_images("photos")
skipped_files(images)   # {".heic file": 40, "hidden": 3}
describe_skipped(images)  # "40 x .txt file, 3 x hidden"
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from moco.data.sources.images import Images
from moco.text import escape

# Made by operating systems and NAS devices: thumbnails, waste baskets, indexes, snapshots. In lower case.
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
        "system volume information", "lost+found", "found.000",
    }
)  # fmt: skip


@dataclass
class Skipped:
    """What a search skipped: how many entries for which reason, and the names of the first ones."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)  # path -> reason, at most LIMIT of them

    LIMIT = 1000

    def add(self, path: str, reason: str) -> None:
        self.counts[reason if reason in self.counts or len(self.counts) < self.LIMIT else "other"] += 1
        if len(self.names) < self.LIMIT:
            self.names[path] = reason

    def __str__(self) -> str:
        """For a message: `12 x .txt file, 3 x hidden`, and how to convert HEIC."""
        text = ", ".join(f"{count:,} x {escape(reason)}" for reason, count in self.counts.most_common(8))
        advice = " (convert HEIC to JPEG or PNG, with pillow-heif or heif-convert)"
        has_heic = any(reason.lower() in (".heic file", ".heif file") for reason in self.counts)
        return text + advice if has_heic else text


def count_skipped_files(images: Images) -> Mapping[str, int]:
    """How many entries beside `images` were skipped, by reason; the most frequent first.

    Empty where nothing was skipped, and for images that are not from folders.
    """
    return dict(_skipped(images).counts.most_common())


def describe_skipped(images: Images) -> str:
    """The same as a sentence: `40 x .txt file, 3 x hidden`. Empty where nothing was skipped."""
    return str(_skipped(images))


def is_system_folder(name: str) -> bool:
    """Whether a directory of this name is made by an operating system or NAS device and has no images of the user."""
    return name.lower() in _SYSTEM_FOLDERS or name.lower().startswith(".trash")


def _skipped(images: Images) -> Skipped:
    while (inner := getattr(images, "images", None)) is not None:  # a Subset
        images = inner
    found = getattr(images, "skipped", None)
    return found if isinstance(found, Skipped) else Skipped()
