"""Parts that several readers need: options, one annotated object, the objects of an image, skipped annotations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.scenes import Mask, Objects

T = TypeVar("T")


@dataclass(frozen=True)
class ReadOptions:
    """How a data set is read."""

    split: str | None = None  # part of a data set that has several
    images: Path | None = None  # folder of the images, if they are not in the format's usual place
    classes: tuple[str, ...] | None = None  # expected classes in their order, such as the training set's
    skip_bad: bool = False  # skip annotations that cannot be used, instead of raising an error


def split_error(path: Path, offered: Iterable[str], split: str | None, *, joined: bool = False) -> DataError:
    """The error for a split that is not given, or is not one of `offered`; `joined`: several may be joined by +."""
    some = "one of them, or several joined by +" if joined else "one of them"
    found = f"the splits {', '.join(map(escape, names))}" if (names := list(offered)) else "no splits"
    return DataError(
        f"{escape(str(path))} has {found}: expected {some}, got {escape(split or 'none')}. Name it by --split, or for "
        "the test by --test-split"
    )


class Annotation(NamedTuple):
    """One object."""

    id: str
    box: Float64[np.ndarray, "4"]
    label: int
    area: float
    crowd: bool = False
    difficult: bool = False
    mask: Mask | None = None
    keypoints: Float64[np.ndarray, "K 3"] | None = None


def objects_of(annotations: list[Annotation], *, masks: bool = False, keypoints: int = 0) -> Objects:
    """The objects of an image. `masks`: whether the data set has masks. `keypoints`: their number in each object."""
    n = len(annotations)
    unlabelled = np.zeros((keypoints, 3))
    points = [unlabelled if one.keypoints is None else one.keypoints for one in annotations]
    return Objects(
        ids=tuple(one.id for one in annotations),
        boxes=np.array([one.box for one in annotations], dtype=np.float64).reshape(n, 4),
        labels=np.array([one.label for one in annotations], dtype=np.int64),
        crowd=np.array([one.crowd for one in annotations], dtype=bool),
        difficult=np.array([one.difficult for one in annotations], dtype=bool),
        areas=np.array([one.area for one in annotations], dtype=np.float64),
        masks=tuple(one.mask for one in annotations) if masks else None,
        keypoints=np.array(points, dtype=np.float64).reshape(n, keypoints, 3) if keypoints else None,
    )


@dataclass
class SkippedAnnotations:
    """Handles annotations that cannot be used: raises the error, or (`skip`) skips them and keeps the reasons."""

    skip: bool
    reasons: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], T]) -> T | None:
        """Call `read` and return its result; None if the annotation is skipped."""
        try:
            return read()
        except AnnotationError as error:
            if not self.skip:
                raise
            self.reasons.append(str(error))
            return None


def with_class(annotation: Annotation, name: str, place: dict[str, int], file: Path) -> Annotation:
    """The annotation with the number of its class `name`. Raises AnnotationError if `place` does not have it."""
    if name not in place:
        raise AnnotationError(file, annotation.id, f"{escape(name)} is none of the classes: {', '.join(place)}")
    return annotation._replace(label=place[name])
