"""RandAugment (Cubuk et al., arXiv:1909.13719) with the operations of timm, as DeiT uses them: rand-m9-mstd0.5-inc1.

Two of 15 operations are drawn, with replacement. Each is applied with probability 0.5, and with a magnitude from
N(9, 0.5), at most 10. timm draws from Python's and NumPy's global generators, which worker threads share. So the random
choices are made here, from a generator of the image; the operations themselves are timm's.
"""

import random
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from moco.transfer.recipe import RGB

LAYERS = 2  # operations of an image
MOST = 10.0  # magnitude
_global_generator = Lock()  # held while timm draws the sign of an operation from Python's global generator


class RandAugment:
    """Args:
    magnitude: 1 to 10; DeiT has 9. size: [pixels] of the square crops.
    mean: of RGB in [0, 1]; fills what a rotation or a shift leaves empty.
    """

    def __init__(self, magnitude: int, *, size: int, mean: RGB) -> None:
        from timm.data.auto_augment import rand_augment_transform

        hparams = {
            "translate_const": int(0.45 * size),
            "img_mean": tuple(min(255, round(255 * value)) for value in mean),
            "interpolation": Image.Resampling.BICUBIC,  # DeiT's
        }
        self.operations: list[Any] = rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", hparams).ops

    def __call__(self, crop: UInt8[np.ndarray, "S S 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
        """The crop with the operations that `rng` draws."""
        image = Image.fromarray(crop)
        for index in rng.integers(len(self.operations), size=LAYERS).tolist():
            operation = self.operations[index]
            applied, magnitude = rng.random() < operation.prob, rng.normal(operation.magnitude, operation.magnitude_std)
            sign = int(rng.integers(2**32))
            if applied:
                image = operation.aug_fn(image, *_level(operation, magnitude, sign), **operation.kwargs)
        return np.asarray(image)


def _level(operation: Any, magnitude: float, seed: int) -> tuple[Any, ...]:
    """The arguments of an operation, by timm. The seed determines their sign."""
    if operation.level_fn is None:
        return ()
    with _global_generator:
        state = random.getstate()
        try:
            random.seed(seed)
            return operation.level_fn(min(max(magnitude, 0.0), MOST), operation.hparams)
        finally:
            random.setstate(state)
