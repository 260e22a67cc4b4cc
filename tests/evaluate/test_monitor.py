from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures
from torch import nn

from moco.data.sources.folder import DataError, find_images
from moco.encoders import Encoder
from moco.evaluate import monitor as module
from moco.evaluate.features import extract
from moco.evaluate.knn import knn
from moco.evaluate.monitor import MONITOR_K, monitor_for
from tests.evaluate.samples import CPU, DATA


def test_its_score_is_the_knn_accuracy_of_the_encoder(encoder: Encoder, labelled: Path):
    train, test = (extract(encoder, find_images(labelled / part), DATA, device=CPU) for part in ("train", "test"))
    score = monitor_for(labelled, DATA, device=CPU, workers=2).score(encoder)
    assert score == pytest.approx(knn(train, test, k=MONITOR_K).accuracy)


def test_it_follows_an_encoder_that_changes(encoder: Encoder, labelled: Path):
    monitor = monitor_for(labelled, DATA, device=CPU, workers=0)
    before = monitor.score(encoder)
    nn.init.zeros_(encoder.backbone.conv1.weight)  # now all images are the same to it
    assert monitor.score(encoder) < before


def test_scoring_changes_no_mode_buffer_gradient_or_random_state(encoder: Encoder, labelled: Path):
    monitor = monitor_for(labelled, DATA, device=CPU, workers=0)
    encoder.train()
    encoder.backbone.bn1.eval()
    encoder(torch.randn(4, 3, 16, 16)).sum().backward()
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    modes = [part.training for part in encoder.modules()]
    gradients = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
    rng, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    monitor.score(encoder)
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    assert [part.training for part in encoder.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())
    left = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    assert len(left) == len(gradients)
    assert all(torch.equal(one, other) for one, other in zip(left, gradients, strict=True))


def test_large_sets_are_cut_down_to_the_same_images_every_time(labelled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TRAIN", 20)
    monkeypatch.setattr(module, "TEST", 7)
    one, other = (monitor_for(labelled, DATA, device=CPU, workers=workers) for workers in (0, 2))
    assert (len(one.train.crops), len(one.test.crops)) == (20, 7)
    assert torch.equal(one.train.crops, other.train.crops)
    assert torch.equal(one.test.labels, other.test.labels)
    assert len(one.train.labels.unique()) == 4  # they are drawn: the first 20 are of two classes


def test_its_crops_fit_into_the_memory_allowed(labelled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TRAIN", 60)
    monkeypatch.setattr(module, "TEST", 24)
    monitor = monitor_for(labelled, DATA, device=CPU, workers=0, max_bytes=42 * 3 * 16 * 16)
    assert (len(monitor.train.crops), len(monitor.test.crops)) == (30, 12)


def test_bad_images_are_skipped(encoder: Encoder, labelled: Path):
    (labelled / "train" / "class0" / "0000.png").write_bytes(b"no")
    monitor = monitor_for(labelled, DATA, device=CPU, workers=0)
    assert len(monitor.train.crops) == len(monitor.train.labels) == 59
    assert monitor.train.labels.bincount().tolist() == [14, 15, 15, 15]


def test_images_without_labels_are_an_error(pictures: Path):
    with pytest.raises(DataError, match="class folders"):
        monitor_for(pictures, DATA, device=CPU, workers=0)


def test_no_image_that_can_be_read_is_an_error(tmp_path: Path):
    make_pictures(tmp_path, 12, classes=2)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no")
    with pytest.raises(DataError, match="can be read"):
        monitor_for(tmp_path, DATA, device=CPU, workers=0)
