"""A pipe or a device in a folder of weights is an error. Reading it would wait for ever."""

import json
import os
import shutil

import pytest

import moco
from moco.encoders import build_headless
from moco.evaluate.cache import FeatureCache
from moco.recipe import Recipe
from moco.runs import read_last_values
from moco.train.run_folder import RunFolder
from moco.weights.encoder_folder import load_encoder, save_encoder
from moco.weights.export.fair import _epoch
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from tests.train.run_folders import whole

pytestmark = pytest.mark.timeout(20)


def put_pipe(file) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def test_a_pipe_as_a_checkpoint_is_refused(tmp_path, tiny):
    run = whole(tmp_path / "run", tiny, finishes=False)
    put_pipe(run.checkpoints / "step_00000004.pt")
    with pytest.raises(WeightsError, match=r"step_00000004\.pt cannot be read: it is a pipe"):
        load_encoder(run.path)
    assert read_last_values(RunFolder(run.path))["state"] == "checkpoints cannot be read"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pipe_as_a_file_of_an_encoder_is_refused(tmp_path, name):
    recipe = Recipe(name="small").but(None, {"encoder.name": "resnet18", "encoder.width": 0.0625, "data.size": 32})
    save_encoder(tmp_path / "encoder", build_headless(recipe.encoder, size=32), recipe=recipe, facts={})
    put_pipe(tmp_path / "encoder" / name)
    for weights in (tmp_path, tmp_path / "encoder"):
        with pytest.raises(WeightsError, match="neither a run"):
            load_encoder(weights)


def test_a_pipe_in_a_fine_tuned_model_is_refused(tmp_path):
    config = {"recipe": {}, "classes": [], "keypoints": [], "sha256": ""}
    (tmp_path / "config.json").write_text(json.dumps(config))
    put_pipe(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="it is a pipe"):
        moco.load(tmp_path)


def test_a_pipe_as_stored_features_is_refused(tmp_path):
    messages: list[str] = []
    put_pipe(tmp_path / "key.features")
    assert FeatureCache(tmp_path, messages.append).read("key") is None
    assert "cannot be used" in messages[0]


def test_a_pipe_as_the_log_of_starts_is_refused(tmp_path, tiny):
    run = whole(tmp_path / "run", tiny)
    shutil.rmtree(run.checkpoints)
    put_pipe(run.path / "provenance.json")
    content = {"recipe": tiny.to_json()}
    assert _epoch(LoadedWeights("", {}, {}, facts={"steps": 4}, content=content), run.path) is None
