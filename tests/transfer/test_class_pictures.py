"""Pictures of a classifier's test: the hardest images and the confused classes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from moco.transfer.classification.pictures import (
    confusions,
    draw_confusions,
    draw_predictions,
    hardest_images,
    most_confused,
)
from moco.transfer.readers.formats import read_classes
from tests.transfer.draw_shape_classes import make_shapes


def random_answers(n: int, kinds: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, kinds, generator=rng), torch.randint(0, kinds, (n,), generator=rng)


def test_the_hardest_images_have_the_lowest_probability_of_their_class():
    logits, labels = random_answers(50, 5)
    own = logits.softmax(dim=1).numpy()[np.arange(50), labels.numpy()]
    assert hardest_images(logits, labels, most=7) == np.argsort(own)[:7].tolist()


def test_confusions_are_those_of_scikit_learn():
    logits, labels = random_answers(200, 6)
    expected = confusion_matrix(labels, logits.argmax(dim=1), labels=range(6))
    assert confusions(logits, labels).tolist() == expected.tolist()


def test_classes_with_the_most_mistakes_are_shown():
    """Class 1 is taken for 3 four times, 0 for 2 once, and the others are always right."""
    counts = np.diag([5, 1, 9, 2, 30])
    counts[1, 3], counts[0, 2] = 4, 1
    assert most_confused(counts, most=2) == [1, 3]
    assert most_confused(counts, most=4) == [0, 1, 2, 3]
    assert most_confused(counts) == [0, 1, 2, 3, 4]


def drawn(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_picture_shows_the_hardest_images(tmp_path):
    """Twelve of 16 images are drawn: all but those of the first class, which are the easiest, and are white."""
    images = read_classes(make_shapes(tmp_path / "shapes", 4, seed=0))
    assert images.labels is not None
    for index in np.flatnonzero(images.labels == 0):
        Image.new("RGB", (48, 48), (1, 250, 3)).save(tmp_path / "shapes" / images.names[index])
    labels = torch.from_numpy(images.labels)
    logits = torch.eye(4)[labels] * torch.where(labels == 0, 5.0, -5.0)[:, None]
    marked = (drawn(draw_predictions(images, logits, labels)) == (1, 250, 3)).all(axis=2).sum()
    assert marked == 0
    assert (drawn(draw_predictions(images, -logits, labels)) == (1, 250, 3)).all(axis=2).sum() > 10_000


@pytest.mark.parametrize("kinds", [2, 20, 45])
def test_confusions_can_be_drawn_of_few_and_of_many_classes(kinds):
    logits, labels = random_answers(300, kinds)
    image = drawn(draw_confusions(logits, labels, [f"a class with a long name {i}" for i in range(kinds)]))
    assert image.shape[0] > 300
    assert image.std() > 10
