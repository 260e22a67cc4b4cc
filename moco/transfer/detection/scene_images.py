"""The images of annotated scenes as `Images`, so that a run lists them and notices changes when it resumes."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from moco.data.decode.decode import BadImage, decode
from moco.data.sources.images import DataError
from moco.text import message_of
from moco.transfer.scenes import Mask, Rle, SceneSet
from moco.transfer.semantic import SemanticSet


class SceneImages:
    """The images of annotated scenes, without classes."""

    labels: Int64[np.ndarray, "n"] | None = None
    classes: Sequence[str] = ()

    def __init__(self, scenes: SceneSet | SemanticSet) -> None:
        self.scenes, self.paths = scenes, [one.path for one in scenes.scenes]
        folder = os.path.commonpath([one.path.parent for one in scenes.scenes])
        self.names = [os.path.relpath(one.path, folder).replace(os.sep, "/") for one in scenes.scenes]
        try:
            status = [os.stat(one.path) for one in scenes.scenes]
        except OSError as error:
            raise DataError(f"an annotated image cannot be read: {message_of(error)}") from error
        self.sizes = np.array([one.st_size for one in status], dtype=np.int64)
        self.mtimes = np.array([one.st_mtime_ns for one in status], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` as RGB. Raises BadImage."""
        try:
            return decode(self.scenes.scenes[index].path)
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad


def hash_scenes(scenes: SceneSet, *, more: str = "") -> str:
    """The first 16 characters of a SHA-256 of all annotations: classes, boxes, masks, keypoints, and `more`.

    Args:
        more: further annotations, which only one task uses.
    """
    digest = hashlib.sha256(repr((scenes.classes, scenes.keypoint_names)).encode())
    for scene in scenes.scenes:
        objects = scene.objects
        digest.update(repr((scene.id, scene.width, scene.height, len(objects))).encode())
        for values in (objects.boxes, objects.labels, objects.crowd, objects.difficult):
            digest.update(values.tobytes())
        if objects.keypoints is not None:
            digest.update(objects.keypoints.tobytes())
        for mask in objects.masks or ():
            _add_mask(digest, mask)
    digest.update(more.encode())
    return digest.hexdigest()[:16]


def _add_mask(digest: "hashlib._Hash", mask: Mask | None) -> None:
    for part in () if mask is None else (mask.runs,) if isinstance(mask, Rle) else mask:
        digest.update(part.tobytes())
    digest.update(b"|")
