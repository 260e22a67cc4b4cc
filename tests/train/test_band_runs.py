"""Runs on images with 13 bands of 16 bits: resume, embedding, starts from RGB weights, and export."""

import json

import numpy as np
import pytest
import tifffile
import torch
from timm.models import adapt_input_conv

import moco
from moco.encoders import build
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.recipes import find_recipe

BANDS = 13
SMALL = {"data.size": 16, "data.eval_resize": 16, "method.size": 16, "optim.batch_size": 16, "method.bn_groups": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 TIFF files with 13 bands of 16 bits."""
    out, rng = tmp_path_factory.mktemp("bands"), np.random.default_rng(0)
    for i in range(48):
        array = rng.integers(0, 4000, (20, 22, BANDS), dtype=np.uint16)
        tifffile.imwrite(out / f"{i:02}.tif", array, photometric="minisblack", planarconfig="contig")
    return out


def run(folder, out, **more):
    options = {"recipe": "demo", "epochs": 2, "bands": True, "device": "cpu", "report": False, "compare": False} | more
    return moco.pretrain(folder, out, settings=SMALL | options.pop("settings", {}), **options)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("runs") / "whole", save_every=1)


def test_the_recipe_has_what_was_measured(whole):
    assert whole.recipe.encoder.channels == BANDS
    assert len(whole.recipe.data.bands) == len(whole.recipe.data.mean) == BANDS
    assert all(0 <= low < 100 < 3900 < high <= 4000 for low, high in whole.recipe.data.bands)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(folder, whole, tmp_path, monkeypatch):
    import moco.train.after_step as after_step

    out, made = tmp_path / "stopped", after_step.AfterStep.__call__

    def stop(self, state, *args, **kwargs):
        result = made(self, state, *args, **kwargs)
        if state.clock.step == 3:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(after_step.AfterStep, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, save_every=1)
    monkeypatch.undo()
    resumed = run(folder, out, save_every=1)
    for name, tensor in moco.load(whole.path).encoder.state_dict().items():
        assert torch.equal(tensor, moco.load(resumed.path).encoder.state_dict()[name]), name


def test_embedding_is_the_network_of_the_normalized_central_crop(folder, whole):
    encoder, data = moco.load(whole.path), whole.recipe.data
    raw = tifffile.imread(folder / "05.tif").astype(np.float64)
    low, high = np.array(data.bands).T
    unit = torch.from_numpy(((raw - low) / (high - low)).clip(0, 1)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(unit, (16, 17), mode="bilinear", antialias=True)[..., :16]
    x = (x - torch.tensor(data.mean).view(-1, 1, 1)) / torch.tensor(data.std).view(-1, 1, 1)
    with torch.no_grad():
        expected = encoder.encoder.features(x)[0].numpy()
    for given in (folder / "05.tif", tifffile.imread(folder / "05.tif")):
        np.testing.assert_allclose(encoder.embed([given])[0], expected, rtol=1e-4, atol=1e-5)


def test_weights_for_rgb_start_a_run_on_bands_by_timms_rule(folder, tmp_path):
    spec = EncoderSpec(name="resnet18")
    start = build(spec, size=32).backbone.state_dict()
    torch.save(start, tmp_path / "rgb.pt")
    began = run(
        folder, tmp_path / "run", recipe="auto", model="resnet18", epochs=1, init=tmp_path / "rgb.pt",
        settings={"encoder.stem": "7x7/2+pool"},
    )  # fmt: skip
    assert "repeated for 13 channels" in (began.path / "train.log").read_text()
    assert moco.load(began.path).encoder.get_parameter("backbone.conv1.weight").shape[1] == BANDS
    from moco.weights.adapt_channels import adapt_channels
    from moco.weights.load import read_weights

    network = build(spec.model_copy(update={"channels": BANDS}), size=32).backbone
    found, _ = adapt_channels(read_weights(tmp_path / "rgb.pt"), network, channels=BANDS)
    assert torch.equal(found.backbone["conv1.weight"], adapt_input_conv(BANDS, start["conv1.weight"]))


def test_settings_that_bands_cannot_have_are_refused():
    bands = {"data.bands": [(0, 1)] * 4, "data.mean": [0.5] * 4, "data.std": [0.2] * 4, "encoder.channels": 4}
    quiet = {f"data.views.{i}.{name}": 0 for i in (0, 1) for name in ("grey", "jitter.hue", "jitter.saturation")}
    recipe = find_recipe("moco_v2_r50").but(None, bands | quiet)
    assert json.loads(recipe.to_json())["data"]["bands"] == [[0, 1]] * 4
    assert Recipe.from_json(recipe.to_json()) == recipe
    for wrong, message in (
        (bands, "no hue, saturation or grey"),
        (bands | quiet | {"data.mean": [0.5] * 3}, "data.mean must have a value for each of 4 channels"),
        (bands | quiet | {"encoder.channels": 3}, "encoder.channels=3, and data.bands has 4"),
        (bands | quiet | {"data.bands": [(1, 0)] * 4}, "low < high"),
        (bands | quiet | {"data.shrink": 64}, "data.shrink=null"),
        ({"encoder.channels": 4}, "the images are RGB"),
    ):
        with pytest.raises(RecipeError, match=message):
            find_recipe("moco_v2_r50").but(None, wrong)


def test_a_change_of_bands_is_refused_for_rgb(folder, tmp_path):
    with pytest.raises(RecipeError, match=r"jitter\.bands is for images with bands"):
        run(folder, tmp_path / "run", bands=False, settings={"data.views.0.jitter.bands": 0.1})


@pytest.mark.parametrize("name", ["resnet18", "vit_micro", "torchvision/mobilenet_v3_small", "timm/convnext_atto"])
def test_networks_of_every_family_take_any_number_of_channels(name: str):
    for channels in (1, 4, 13):
        encoder = build(EncoderSpec(name=name, channels=channels), size=32)
        assert encoder(torch.randn(2, channels, 32, 32)).shape == (2, 128)
        assert sum(one.in_channels == channels for one in encoder.modules() if isinstance(one, torch.nn.Conv2d)) >= 1
