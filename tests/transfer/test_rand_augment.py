"""RandAugment: timm's operations, drawn as DeiT's `rand-m9-mstd0.5-inc1` draws them, for each image by itself."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, rand_augment_transform

from moco.transfer.classification.loader import ImageLoader
from moco.transfer.classification.rand_augment import RandAugment, _level
from moco.transfer.classification.recipes import SCHEDULES, classification_recipe
from moco.transfer.readers.formats import read_classes
from tests.transfer.draw_shape_classes import make_shapes

MEAN = (0.485, 0.456, 0.406)
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_the_operations_are_those_of_deit():
    """What timm's create_transform(auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic") makes for size 32."""
    from timm.data import create_transform

    whole = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic")
    (theirs,) = [one for one in whole.transforms if type(one).__name__ == "RandAugment"]
    ours = RandAugment(9, size=32, mean=MEAN).operations
    assert [vars(one) for one in ours] == [vars(one) for one in theirs.ops]
    assert theirs.num_layers == 2


@pytest.mark.parametrize("index", range(15))
def test_an_operation_gives_what_timms_gives(index: int):
    """With a fixed magnitude of 9, for both signs."""
    ours = RandAugment(9, size=32, mean=MEAN).operations[index]
    theirs = AugmentOp(ours.name, prob=1.0, magnitude=9, hparams={**ours.hparams, "magnitude_std": 0})
    image = Image.fromarray(PICTURE)
    for seed in range(4):
        random.seed(seed)
        expected = np.asarray(theirs(image))
        state = random.getstate()
        found = ours.aug_fn(image, *_level(ours, 9.0, seed), **ours.kwargs)
        assert np.array_equal(np.asarray(found), expected)
        assert random.getstate() == state  # the global generator is left as it was


def test_two_operations_are_drawn_each_with_a_probability_of_a_half():
    """15 operations, 2 of an image, each applied to half of the images, with a magnitude from N(9, 0.5), at most 10."""
    change = RandAugment(9, size=32, mean=MEAN)
    seen, levels = Counter[str](), list[float]()
    for operation in change.operations:
        operation.aug_fn = lambda image, *args, name=operation.name, **_: seen.update([name]) or image
        operation.level_fn = lambda magnitude, hparams: levels.append(magnitude) or ()
    for number in range(3000):
        change(PICTURE, np.random.default_rng(number))
    # 3,000 draws of an operation: expected 200 of each, with a standard deviation of 14
    assert len(seen) == 15
    assert all(140 < count < 260 for count in seen.values())
    assert np.mean(levels) == pytest.approx(9, abs=0.05)
    assert max(levels) == 10
    assert 0.4 < np.std(levels) < 0.52  # a little less than 0.5, as it is cut off at 10


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = make_shapes(tmp_path_factory.mktemp("made") / "shapes", 3, seed=0, size=24)
    return read_classes(folder)


def batches(images, magnitude: int, steps: range, *, workers: int) -> list[torch.Tensor]:
    settings = {"optim.batch_size": 4, "images.size": 16, "images.eval_resize": 16, "augment.rand_augment": magnitude}
    recipe = classification_recipe("linear", "4").but("small", settings)
    return [one.inputs[0] for one in ImageLoader(images, recipe, steps=steps, workers=workers)]


def test_crops_depend_on_seed_epoch_and_image_alone(images):
    whole = batches(images, 9, range(6), workers=0)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    later = batches(images, 9, range(2, 6), workers=3)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], later, strict=True))
    plain = batches(images, 0, range(6), workers=0)
    equal = torch.stack([(a == b).flatten(1).all(dim=1) for a, b in zip(whole, plain, strict=True)])
    assert 0 < equal.sum() < equal.numel()  # a quarter of the crops has no operation


def test_only_the_recipe_for_imagenet_has_it():
    """DeiT's default; MoCo v3's transfer/datasets.py for the other data sets has crops and flips only."""
    assert {name: one.augment.rand_augment for name, one in SCHEDULES.items() if one.augment.rand_augment} == {"v3": 9}
    assert rand_augment_transform("rand-m9-mstd0.5-inc1", {}).ops[0].magnitude == 9
