"""CPU time of a view of MoCo v2 by the number of bands, beside RGB: python -m benchmarks.bands

One thread; images of 400 x 500 pixels in memory, views of 224 pixels; medians of several rounds, interleaved.
"""

import statistics
import time

import numpy as np

from moco.data.augment import cpu
from moco.data.augment.random_parameters import random_numbers
from moco.recipe import Jitter, View
from moco.recipes import find_recipe

BANDS, ROUNDS, VIEWS, SIZE = (1, 3, 13), 5, 40, 224


def milliseconds(image: np.ndarray, view: View, bands: int) -> float:
    """CPU time of one view of `image`."""
    drawn = cpu.DrawnView(view, random_numbers(0, 0, ids=np.arange(VIEWS), view_index=0, bands=bands))
    out = np.empty((VIEWS, SIZE, SIZE, image.shape[2]), image.dtype)
    start = time.process_time()
    for row in range(VIEWS):
        cpu.write_views(image, [drawn], row, [out], coloured=True)
    return 1000 * (time.process_time() - start) / VIEWS


def main() -> None:
    """Print a row for RGB and for each number of bands."""
    cpu.kernels(wait=True)
    rng = np.random.default_rng(0)
    usual = find_recipe("moco_v2_r50").data.views[0]
    without_hue = usual.model_copy(update={"grey": 0.0, "jitter": Jitter(saturation=0, hue=0, bands=0.2)})
    rgb = rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    images = {bands: rng.random((400, 500, bands), dtype=np.float32) for bands in BANDS}
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        times.setdefault("RGB", []).append(milliseconds(rgb, usual, 0))
        for bands, image in images.items():
            times.setdefault(f"{bands} bands", []).append(milliseconds(image, without_hue, bands))
    for name, values in times.items():
        print(f"{name:>9}  {statistics.median(values):6.2f} ms a view ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
