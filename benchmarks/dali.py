"""Two views of MoCo v2 by DALI's operators on the CPU. Runs in the environment that has DALI.

The distribution differs: the jitter has a fixed order, another hue than Pillow's, and does not clip between changes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, pipeline_def, types  # pyright: ignore[reportMissingImports]

from benchmarks.inputs import data_of, folder_of
from benchmarks.measure import Work
from moco.recipe import DataSpec, View

WINDOW = 13  # [pixels] of the blur, as wide as Pillow's


def views(folder: Path) -> Work:
    """A mini-batch of all files of the folder, float32 views, in one thread."""
    data, paths = data_of("v2"), folder_of(folder)[1]
    pipeline = _pipeline(
        data, [str(path) for path in paths], batch_size=len(paths), num_threads=1, device_id=None, seed=0,
        prefetch_queue_depth=1, exec_async=False, exec_pipelined=False,
    )  # fmt: skip
    pipeline.build()
    return lambda: [np.asarray(out.as_array()) for out in pipeline.run()]


@pipeline_def(enable_conditionals=True)
def _pipeline(data: DataSpec, files: list[str]) -> Any:
    content, _ = fn.readers.file(files=files, prefetch_queue_depth=1)
    image = fn.decoders.image(content, device="cpu", output_type=types.RGB)
    return tuple(_view(image, view, data) for view in data.views)


def _view(image: Any, view: View, data: DataSpec) -> Any:
    jitter = view.jitter
    image = fn.random_resized_crop(
        image, size=(data.size, data.size), random_area=view.crop_area, random_aspect_ratio=view.crop_ratio
    )
    if fn.random.coin_flip(probability=jitter.p, dtype=types.BOOL):
        image = fn.color_twist(
            image, brightness=_around(1, jitter.brightness), contrast=_around(1, jitter.contrast),
            saturation=_around(1, jitter.saturation), hue=_around(0, 360 * jitter.hue),
        )  # fmt: skip
    if fn.random.coin_flip(probability=view.grey, dtype=types.BOOL):
        image = fn.saturation(image, saturation=0.0)
    if fn.random.coin_flip(probability=view.blur, dtype=types.BOOL):
        image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=view.blur_sigma), window_size=WINDOW)
    mean, std = ([255 * number for number in row] for row in (data.mean, data.std))
    return fn.crop_mirror_normalize(
        image, mean=mean, std=std, output_layout="CHW", dtype=types.FLOAT,
        mirror=fn.random.coin_flip(probability=view.flip),
    )  # fmt: skip


def _around(middle: float, strength: float) -> Any:
    return fn.random.uniform(range=(middle - strength, middle + strength))
