"""`moco export --to detectron2|deit|hf|onnx`: what is written, as the other side reads it."""

import importlib
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from moco.encoders import build
from moco.recipe import DataSpec, EncoderSpec, Recipe
from moco.weights import export as exporting
from moco.weights.detectron2 import from_detectron2, to_detectron2
from moco.weights.encoder_folder import WeightsError, save_encoder
from moco.weights.export import EXPORT_FORMATS, export
from tests.weights import reference_files

X = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
BN = ("weight", "bias", "running_mean", "running_var")
LAYERS = {
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path):
    """Saves a random encoder with moved BN statistics, and returns its folder and its features of X."""

    def save(spec: EncoderSpec, *, size: int = 64) -> tuple[Path, torch.Tensor]:
        with torch.random.fork_rng():
            encoder = build(spec, size=size)
            reference_files.trained(encoder)
        data = DataSpec(size=size, eval_resize=size + 8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
        save_encoder(tmp_path / "encoder", encoder, recipe=Recipe(name="r", encoder=spec, data=data), facts={})
        with torch.no_grad():
            return tmp_path / "encoder", encoder.features(X[:, :, :size, :size])

    return save


def detectron2s(name: str) -> dict[str, str]:
    """Detectron2's name of every tensor of a ResNet -> torchvision's, put together block by block from its rules."""
    table = {"stem.conv1.weight": "conv1.weight"}
    table |= {f"stem.conv1.norm.{part}": f"bn1.{part}" for part in BN}
    convolutions = (1, 2) if name in ("resnet18", "resnet34") else (1, 2, 3)
    for stage, blocks in enumerate(LAYERS[name]):
        for block in range(blocks):
            there, here = f"res{stage + 2}.{block}", f"layer{stage + 1}.{block}"
            for i in convolutions:
                table[f"{there}.conv{i}.weight"] = f"{here}.conv{i}.weight"
                table |= {f"{there}.conv{i}.norm.{part}": f"{here}.bn{i}.{part}" for part in BN}
            if block == 0 and (stage > 0 or len(convolutions) == 3):  # where shapes change
                table[f"{there}.shortcut.weight"] = f"{here}.downsample.0.weight"
                table |= {f"{there}.shortcut.norm.{part}": f"{here}.downsample.1.{part}" for part in BN}
    return table


@pytest.mark.parametrize("name", list(LAYERS))
def test_the_names_are_detectron2s_one_for_one(name: str) -> None:
    with torch.device("meta"):
        state = models.get_model(name).state_dict()
    kept = [key for key in state if not key.startswith("fc.") and not key.endswith("num_batches_tracked")]
    assert {to_detectron2(key): key for key in kept} == detectron2s(name)
    assert [from_detectron2(to_detectron2(key)) for key in kept] == kept
    assert name != "resnet50" or len(kept) == 265


def test_detectron2_gets_every_tensor_under_its_name_and_nothing_else(saved, tmp_path: Path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    export(folder, to="detectron2", out=tmp_path / "r18.pth")
    content = torch.load(tmp_path / "r18.pth", weights_only=True)
    state, table = load_file(folder / "model.safetensors"), detectron2s("resnet18")
    assert content["matching_heuristics"] is True
    assert content["__author__"]
    assert content["model"].keys() == table.keys()
    assert all(torch.equal(content["model"][key], state[table[key]]) for key in table)


def test_the_yaml_has_what_the_weights_need(saved, tmp_path: Path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    export(folder, to="detectron2", out=tmp_path / "r18: mine.pth")
    config = yaml.safe_load((tmp_path / "r18: mine.yaml").read_text())
    assert config["MODEL"]["WEIGHTS"] == "r18: mine.pth"
    assert config["MODEL"]["PIXEL_MEAN"] == pytest.approx([25.5, 51, 76.5])
    assert config["MODEL"]["PIXEL_STD"] == pytest.approx([102, 127.5, 153])
    assert config["MODEL"]["RESNETS"] == {
        "DEPTH": 18, "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": 64,
        "STRIDE_IN_1X1": False, "NORM": "SyncBN",
    }  # fmt: skip
    assert config["MODEL"]["BACKBONE"]["FREEZE_AT"] == 0
    assert config["INPUT"]["FORMAT"] == "RGB"


@pytest.mark.parametrize(
    ("spec", "depth", "groups", "group_width", "stem", "res2"),
    [
        (EncoderSpec(name="resnet50"), 50, 1, 64, 64, 256),  # Detectron2's defaults
        (EncoderSpec(name="resnet50", width=2), 50, 1, 128, 128, 512),
        (EncoderSpec(name="resnext50_32x8d"), 50, 32, 8, 64, 256),
        (EncoderSpec(name="resnet34"), 34, 1, 64, 64, 64),
        (EncoderSpec(name="resnet101"), 101, 1, 64, 64, 256),
    ],
)
def test_the_yaml_for_detectron2_has_the_shape_of_the_network(spec, depth, groups, group_width, stem, res2) -> None:
    from moco.weights.encoder_folder import Config
    from moco.weights.export.detectron2 import detectron2_settings

    with torch.device("meta"):
        encoder = build(spec)
    config = Config(encoder=spec, num_features=encoder.num_features, data=DataSpec())
    made = detectron2_settings(encoder.backbone.state_dict(), config, file="a.pth")
    assert (made["depth"], made["groups"], made["group_width"]) == (depth, groups, group_width)
    assert (made["stem"], made["res2"]) == (stem, res2)
    assert made["mean"] == [123.675, 116.28, 103.53]
    assert made["std"] == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (EncoderSpec(name="resnet18", stem="3x3"), "ImageNet's 7x7 stem, and this resnet18 is not one"),
        (EncoderSpec(name="resnet10"), "no ResNet with .1, 1, 1, 1. basic blocks"),
        (EncoderSpec(name="vit_micro"), "this vit_micro is not one"),
    ],
)
def test_networks_that_detectron2_does_not_have_are_refused(
    saved, tmp_path: Path, spec: EncoderSpec, said: str
) -> None:
    folder, _ = saved(spec, size=32)
    with pytest.raises(WeightsError, match=said):
        export(folder, to="detectron2", out=tmp_path / "out.pth")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder"}


MICRO = EncoderSpec(name="vit_micro", patch=4)


def test_deits_model_loads_all_but_its_classifier(saved, tmp_path: Path) -> None:
    folder, features = saved(MICRO, size=32)
    said = export(folder, to="deit", out=tmp_path / "vit.pth")
    state = torch.load(tmp_path / "vit.pth", weights_only=True)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=5
    )
    result = network.load_state_dict(state["model"], strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["head.weight", "head.bias"], [])
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(X[:, :, :32, :32]), features, rtol=1e-5, atol=1e-5)
    assert "num_heads=4" in said
    assert list(state) == ["model"]


def test_a_vit_small_is_exported_with_its_12_heads_in_the_printed_program(saved, tmp_path: Path) -> None:
    folder, features = saved(EncoderSpec(name="vit_small"), size=32)
    assert "num_heads=12" in export(folder, to="deit", out=tmp_path / "vit.pth")
    program = export(folder, to="timm", out=tmp_path / "vit.safetensors").partition("\n\n")[2]
    assert "num_heads=12" in program
    names: dict[str, nn.Module] = {}
    exec(program, names)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(X[:, :, :32, :32]), features, rtol=1e-4, atol=1e-4)


def test_a_resnet_is_not_for_deit(saved, tmp_path: Path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet10"))
    with pytest.raises(WeightsError, match="expects a ViT, got resnet10"):
        export(folder, to="deit", out=tmp_path / "out.pth")


@pytest.mark.parametrize(
    "spec",
    [EncoderSpec(name="resnet18"), MICRO, EncoderSpec(name="timm/test_vit")],
    ids=["resnet18", "micro", "test_vit"],
)
def test_timm_loads_the_folder_for_the_hub(saved, tmp_path: Path, spec: EncoderSpec) -> None:
    size = 32 if spec.name == "vit_micro" else 64
    folder, features = saved(spec, size=size)
    program = export(folder, to="hf", out=tmp_path / "hub").partition("\n\n")[2]
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"config.json", "model.safetensors"}
    names: dict[str, nn.Module] = {}
    exec(program, names)
    model = names["model"].eval()
    with torch.no_grad():
        torch.testing.assert_close(model(X[:, :, :size, :size]), features, rtol=1e-5, atol=1e-5)
    look = timm.data.resolve_model_data_config(model)
    assert (look["mean"], look["std"], look["interpolation"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], "bilinear")
    assert look["input_size"][-1] == size
    assert round(size / look["crop_pct"]) == size + 8


def test_an_existing_folder_is_not_replaced(saved, tmp_path: Path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    with pytest.raises(WeightsError, match="a new or an empty folder"):
        export(folder, to="hf", out=folder)
    assert (folder / "README.md").exists()


@pytest.mark.parametrize("spec", [EncoderSpec(name="resnet10", width=0.25, stem="3x3/2"), MICRO], ids=["resnet", "vit"])
@pytest.mark.usefixtures("without_shape_checks")
def test_onnx_runtime_gives_the_features_of_any_number_of_images(saved, tmp_path: Path, spec: EncoderSpec) -> None:
    import onnxruntime

    folder, features = saved(spec, size=32)
    said = export(folder, to="onnx", out=tmp_path / "encoder.onnx")
    names: dict[str, torch.Tensor] = {}
    exec(said.partition("\n\n")[2], names)  # as printed
    assert names["features"].shape == (1, features.shape[1])
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("images", ["N", 3, 32, 32])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("features", ["N", features.shape[1]])]
    for n in (1, 2, 3):
        got = session.run(None, {"images": X[:n, :, :32, :32].numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(got), features[:n], rtol=1e-4, atol=1e-4)
    assert "resize the shorter side to 40 pixels" in said
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["encoder.onnx"]  # no data beside it


def test_other_features_in_onnx_runtime_are_found_out(saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = saved(EncoderSpec(name="resnet10", width=0.25))
    import onnxruntime

    true = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *given: [one * 1.001 for one in true(*given)])
    with pytest.raises(WeightsError, match="ONNX Runtime gives other features"):
        export(folder, to="onnx", out=tmp_path / "encoder.onnx")
    assert not (tmp_path / "encoder.onnx").exists()


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    folder, _ = saved(EncoderSpec(name="resnet10", width=0.25))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "\.\[export\]"'):
        export(folder, to="onnx", out=tmp_path / "encoder.onnx")


def test_the_module_is_imported_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    importlib.reload(importlib.import_module("moco.weights.export.onnx"))


@pytest.mark.parametrize(
    ("to", "ending"), [("fair", ".safetensors"), ("detectron2", ".pkl"), ("deit", ".npz"), ("onnx", ".pth")]
)
def test_an_export_to_a_file_with_another_ending_is_refused(saved, tmp_path: Path, to: str, ending: str) -> None:
    with pytest.raises(WeightsError, match="writes a file that ends in"):
        export(tmp_path / "any", to=to, out=tmp_path / f"out{ending}")


def test_the_command_line_offers_every_format() -> None:
    from moco.cli.options import Target

    assert [target.value for target in Target] == list(EXPORT_FORMATS)
    assert exporting.EXPORT_FORMATS is EXPORT_FORMATS
