"""What several test files need: small pictures on the disk, and a run that takes a second."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moco import recipes
from moco.recipe import Recipe


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run beside each other: one thread each."""
    torch.set_num_threads(1)


def make_pictures(folder: Path, n: int, *, side: int = 20, seed: int = 0, classes: int = 0) -> Path:
    """`n` PNG files of noise over a colour that tells the class, in class folders if there are classes."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        label = i % max(classes, 1)
        colour = np.array([[230, 30, 30], [30, 200, 30], [30, 30, 230], [200, 200, 30]][label % 4])
        pixels = np.clip(colour + rng.normal(0, 40, (side, side + 4, 3)), 0, 255).astype(np.uint8)
        place = folder / f"class{label}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:04d}.png")
    return folder


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A flat folder of 40 pictures."""
    return make_pictures(tmp_path / "pictures", 40)


@pytest.fixture
def tiny() -> Recipe:
    """A recipe whose run on 40 pictures has 10 steps."""
    return recipes.named("demo").but(
        "tiny",
        {
            "encoder.width": 0.0625, "encoder.dim": 8, "data.size": 16, "data.eval_resize": 16, "method.size": 20,
            "optim.batch_size": 8, "optim.epochs": 2,
        },
    )  # fmt: skip
