"""Scenes in memory, for the tests of metrics."""

from pathlib import Path

import numpy as np

from moco.transfer.scenes import Mask, Objects, Scene, SceneSet


def objects(
    boxes,
    labels,
    *,
    crowd=None,
    difficult=None,
    areas=None,
    masks: tuple[Mask | None, ...] | None = None,
    keypoints=None,
) -> Objects:
    n = len(labels)
    corners = np.asarray(boxes, dtype=np.float64).reshape(n, 4)
    return Objects(
        ids=tuple(f"object {number}" for number in range(n)),
        boxes=corners,
        labels=np.asarray(labels, dtype=np.int64),
        crowd=np.zeros(n, dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool),
        difficult=np.zeros(n, dtype=bool) if difficult is None else np.asarray(difficult, dtype=bool),
        areas=(corners[:, 2:] - corners[:, :2]).prod(1) if areas is None else np.asarray(areas, dtype=np.float64),
        masks=masks,
        keypoints=keypoints,
    )


def scene_set(classes, every: list[Objects], *, size=(100, 100)) -> SceneSet:
    width, height = size
    scenes = [Scene(Path(f"{number}.jpg"), number, width, height, one) for number, one in enumerate(every)]
    return SceneSet(tuple(classes), tuple(scenes), tuple(range(1, len(classes) + 1)))
