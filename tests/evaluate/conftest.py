from pathlib import Path

import pytest
from sample_pictures import make_pictures

from moco.encoders import Encoder
from moco.evaluate.features import Pretrained
from moco.weights.encoder_folder import Config
from tests.evaluate.samples import CPU, DATA, SPEC, trained_encoder


@pytest.fixture
def encoder() -> Encoder:
    return trained_encoder()


@pytest.fixture
def pretrained(encoder: Encoder) -> Pretrained:
    return Pretrained(encoder, Config(encoder=SPEC, num_features=encoder.num_features, data=DATA), CPU, "the encoder")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder with train/ and test/ of four classes that their colours tell apart."""
    make_pictures(tmp_path / "labelled" / "train", 60, classes=4)
    make_pictures(tmp_path / "labelled" / "test", 24, classes=4, seed=1)
    return tmp_path / "labelled"
