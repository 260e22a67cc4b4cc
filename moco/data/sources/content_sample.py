"""A hash of the contents of some image files: whether files with new times of change have the same content.

Data that is copied to a local disk for each job has new times in every job.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from moco.data.sources.encoded import EncodedImages
from moco.data.sources.folder import Folder
from moco.data.sources.images import Images
from moco.data.sources.manifest import Manifest
from moco.data.sources.names import same_names
from moco.rng import fold, permute

FILES = 512  # that are compared, at most
BYTES = 2**17  # that are read at the start of a file, and at its end
READERS = 16  # threads: a network disk answers many at a time


class ContentSample(NamedTuple):
    """The SHA-256 over the contents of `files` images of a data set."""

    files: int
    sha256: str


def content_sample(images: Images) -> ContentSample | None:
    """The sample of images that are files: always the same ones, all if they are few. None for other images."""
    chosen = permute(np.arange(min(FILES, len(images))), len(images), fold(0)).tolist()
    if isinstance(images, EncodedImages):
        digest = partial(_digest_of_image, images)
        parts: Sequence[Any] = chosen
    else:
        digest, parts = _digest, _paths(images, chosen)
    if not parts:
        return None
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(digest, parts))
    return ContentSample(len(parts), hashlib.sha256(b"".join(digests)).hexdigest())


def same_contents(was: Any, before: Manifest, now: Manifest, images: Images) -> str:
    """A sentence that says that only times of change differ; empty if more differs, or if it is not known.

    Args:
        was: the ContentSample of the images `before`, as it was recorded.
    """
    same = same_names(before.names, now.names) and np.array_equal(before.sizes, now.sizes)
    if not same or not (isinstance(was, list | tuple) and len(was) == len(ContentSample._fields)):
        return ""
    times = int((before.mtimes != now.mtimes).sum())
    sample = content_sample(images)
    if sample is None or list(was) != list(sample) or times < len(images) != sample.files:
        return ""  # of a few changed files, the sample may have none
    return (
        f"{times:,} of {len(images):,} images have another time of change, and the same sizes and contents "
        f"({sample.files:,} files were read): the run resumes with the same bits"
    )


def _paths(images: Images, chosen: list[int]) -> Sequence[str]:
    """The files of the sample; none if the images are not files."""
    if isinstance(images, Folder):
        return [] if not images.local else [images.path(i) for i in chosen]
    files = getattr(images, "paths", None)  # of labelled or annotated images
    return [str(files[i]) for i in chosen] if files is not None else []


def _digest_of_image(images: EncodedImages, index: int) -> bytes:
    """The same as `_digest`, of an image inside of another file."""
    try:
        content = images.read_bytes(index)
    except (OSError, ValueError):
        content = b""
    start, end = content[:BYTES], content[max(BYTES, len(content) - BYTES) :]
    return hashlib.sha256(start + end).digest()


def _digest(path: str) -> bytes:
    """The SHA-256 of a file's start and end; of nothing if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            content = file.read(BYTES)
            end = os.fstat(descriptor).st_size
            if end > BYTES:
                file.seek(max(BYTES, end - BYTES))
                content += file.read(BYTES)
    except OSError:
        content = b""
    return hashlib.sha256(content).digest()
