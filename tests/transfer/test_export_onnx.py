"""Fine-tuned segmenters and classifiers in ONNX Runtime, and refusals of what cannot be exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.data.augment.cpu import eval_crop
from moco.encoders import build_headless
from moco.recipe import EncoderSpec
from moco.transfer.saved_model import model_files
from moco.transfer.task_interface import Labels
from moco.transfer.task_registry import TASKS
from moco.weights.loaded_weights import WeightsError

CLASSES = ("background", "leaf", "stem")
SMALL = EncoderSpec(name="resnet10", width=0.125, stem="3x3/2")
RECIPES: dict[str, dict[str, Any]] = {
    "segment": {"encoder": SMALL, "channels": 8, "bn": "sync", "mean": (0.2, 0.5, 0.7), "std": (0.3, 0.2, 0.1)},
    "classify": {"encoder": SMALL, "images.size": 32, "images.eval_resize": 40},
    "detect": {"encoder": SMALL, "detector.fpn_channels": 8, "detector.fc_channels": 8},
}


def saved(folder: Path, task: str) -> Path:
    """The folder model/ of a run with random weights and BN statistics that are not those of a new network."""
    recipe = TASKS[task].paper_recipe(TASKS[task].arch, "4").but("small", RECIPES[task])
    labels = Labels(CLASSES)
    torch.manual_seed(0)
    model = TASKS[task].build(build_headless(SMALL, size=recipe.encoder_size), recipe, labels)
    for name, values in model.named_buffers():
        if name.endswith("running_var"):
            values.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            values.uniform_(-0.1, 0.1)
    (folder / "model").mkdir()
    for name, content in model_files(model, recipe=recipe, labels=labels).items():
        (folder / "model" / name).write_bytes(content)
    return folder


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def some_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_segmenter_predicts_the_same_classes_in_onnx_runtime_at_any_size(tmp_path: Path):
    run, out = saved(tmp_path, "segment"), tmp_path / "new" / "segmenter.onnx"
    said = moco.export(run, to="onnx", out=out)
    assert "maps `images`, N x 3 x H x W bytes, to `logits`, N x 3 x H x W" in said
    session, tuned = session_of(out), moco.load(run, device="cpu")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    for height, width in ((16, 17), (18, 47), (65, 33)):
        image = some_image(height, width)
        (logits,) = session.run(None, {"images": image.transpose(2, 0, 1)[None]})
        first, second = np.sort(logits[0], axis=0)[::-1][:2]
        sure = first - second > 1e-3 * np.abs(logits).max()
        assert sure.mean() > 0.9
        assert np.array_equal(logits[0].argmax(axis=0)[sure], tuned.predict(image)[sure])
    program: dict[str, Any] = {}
    exec(said[said.index("import json") :], program)  # the program that it prints
    assert program["logits"].shape == (1, 3, 480, 640)
    assert program["classes"] == list(CLASSES)


def test_a_classifier_gives_the_same_probabilities_in_onnx_runtime(tmp_path: Path):
    run, out = saved(tmp_path, "classify"), tmp_path / "classifier.onnx"
    result = CliRunner().invoke(app, ["export", str(run), "--to", "onnx", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "resize the shorter side to 40 pixels, crop the central 32 x 32" in result.output
    tuned, image = moco.load(run, device="cpu"), some_image(50, 70)
    crops = np.repeat(eval_crop(image, tuned.recipe.data_spec)[None], 5, axis=0)
    (probabilities,) = session_of(out).run(None, {"images": crops})
    expected = tuned.predict(image)
    assert expected.max() < 0.99
    assert np.allclose(probabilities, expected[None], atol=1e-5)


def test_other_outputs_in_onnx_runtime_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *given: [one * 1.001 for one in true(*given)])
    with pytest.raises(WeightsError, match=r"gives other probabilities: they differ by 0\.001 of the larg"):
        moco.export(saved(tmp_path, "classify"), to="onnx", out=tmp_path / "classifier.onnx")
    assert not (tmp_path / "classifier.onnx").exists()


def test_a_detector_is_refused_with_what_to_use_instead(tmp_path: Path):
    run = saved(tmp_path, "detect")
    with pytest.raises(WeightsError, match=r"the task detect cannot be exported .* moco\.load\(.*\)\.predict\(image\)"):
        moco.export(run, to="onnx", out=tmp_path / "detector.onnx")
    with pytest.raises(WeightsError, match=r"is exported to onnx only; to export an encoder to timm, name"):
        moco.export(run, to="timm", out=tmp_path / "detector.pth")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


@pytest.mark.parametrize("name", ["model.onnx", "other.txt"])
def test_files_that_must_not_be_written_are_refused(tmp_path: Path, name: str):
    run = saved(tmp_path, "segment")
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises((moco.RecipeError, WeightsError), match=r"exists|ends in \.onnx"):
        moco.export(run, to="onnx", out=tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"mine"
