import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors import SafetensorError
from torch import nn
from torchvision import models

from moco.atomic_output import open_staged_files
from moco.encoders import build, build_headless
from moco.recipe import DataSpec, EncoderSpec, Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from moco.weights.export import export, hf, libraries
from moco.weights.library_equivalent import IN_BOTH, Call, library_equivalent
from moco.weights.load import WeightsError

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path: Path):
    """Saves a random encoder with moved BN statistics, and returns its folder and its features of X."""

    def save(spec: EncoderSpec, *, size: int = 64) -> tuple[Path, torch.Tensor]:
        torch.manual_seed(0)
        encoder = build(spec, size=size)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 1, 2)
        recipe = Recipe(name="r", encoder=spec, data=DataSpec(size=size, eval_resize=size))
        save_encoder(tmp_path / "encoder", encoder, recipe=recipe, facts={})
        with torch.no_grad():
            return tmp_path / "encoder", encoder.eval().features(X)

    return save


def ran(program: str) -> nn.Module:
    """The model that a printed program makes."""
    names: dict[str, object] = {}
    exec(program, names)
    model = names["model"]
    assert isinstance(model, nn.Module)
    return model.eval()


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        (EncoderSpec(name="resnet18"), 'get_model("resnet18")'),
        pytest.param(
            EncoderSpec(name="resnext50_32x8d"),
            'get_model("resnet50", groups=32, width_per_group=8)',
            marks=pytest.mark.slow,
        ),
        (
            EncoderSpec(name="resnet50", dilate_last=True),
            'get_model("resnet50", replace_stride_with_dilation=[False, False, True])',
        ),
        (EncoderSpec(name="torchvision/mobilenet_v3_small"), 'get_model("mobilenet_v3_small")'),
        (EncoderSpec(name="timm/resnet18"), 'get_model("resnet18")'),
    ],
)
def test_what_is_exported_to_torchvision_gives_the_same_features_there(saved, tmp_path, spec, made) -> None:
    folder, features = saved(spec)
    out = tmp_path / ("out.safetensors" if spec.name == "resnet18" else "out.pth")
    said = export(folder, to="torchvision", out=out)
    assert made in said
    model = ran(said.partition("\n\n")[2])  # as printed
    model.set_submodule("classifier.3" if "mobilenet" in spec.name else "fc", nn.Identity())
    with torch.no_grad():
        assert (model(X) - features).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        (EncoderSpec(name="resnet50"), 'create_model("resnet50"'),
        (EncoderSpec(name="resnet10"), 'create_model("resnet18", layers=(1, 1, 1, 1)'),
        pytest.param(
            EncoderSpec(name="resnext50_32x8d"), 'create_model("resnext50_32x4d", base_width=8', marks=pytest.mark.slow
        ),
        (EncoderSpec(name="resnet50", dilate_last=True), 'create_model("resnet50", output_stride=16'),
        (EncoderSpec(name="timm/test_vit"), 'create_model("test_vit", img_size=64'),
        (EncoderSpec(name="torchvision/densenet121"), 'create_model("densenet121"'),
    ],
)
def test_what_is_exported_to_timm_gives_the_same_features_there(saved, tmp_path, spec, made) -> None:
    folder, features = saved(spec)
    said = export(folder, to="timm", out=tmp_path / "out.safetensors")
    assert made in said
    with torch.no_grad():
        assert (ran(said.partition("\n\n")[2])(X) - features).abs().max() < 1e-5


def test_exactly_the_classifier_is_missing_in_torchvision(saved, tmp_path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    assert "without fc.weight, fc.bias." in export(folder, to="torchvision", out=tmp_path / "out.pth")
    result = models.resnet18().load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"]
    assert result.unexpected_keys == []


def test_exactly_the_classifier_is_missing_in_timm(saved, tmp_path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    export(folder, to="timm", out=tmp_path / "out.safetensors")
    result = timm.models.load_checkpoint(timm.create_model("resnet18"), tmp_path / "out.safetensors", strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"]
    assert result.unexpected_keys == []


def test_the_file_in_the_encoder_folder_loads_in_the_libraries_too(saved) -> None:
    folder, features = saved(EncoderSpec(name="resnet18"))
    model = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(folder / "model.safetensors")).eval()
    with torch.no_grad():
        assert (model(X) - features).abs().max() < 1e-5


@pytest.mark.parametrize("name", sorted(IN_BOTH))
def test_the_networks_in_both_libraries_have_the_same_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        one, other = (Call(library, name).build().state_dict() for library in ("torchvision", "timm"))
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d", "densenet169"])
def test_a_network_in_both_libraries_computes_the_same(name: str) -> None:
    one, other = (Call(library, name).build_headless().eval() for library in ("torchvision", "timm"))
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(one(X), other(X))


@pytest.mark.parametrize(
    ("spec", "to", "why"),
    [
        (EncoderSpec(name="resnet18", width=2), "torchvision", "has no resnet18 with width 2: .*--to onnx takes it"),
        (EncoderSpec(name="resnet18", stem="3x3"), "timm", "has no resnet18 with the stem 3x3"),
        (EncoderSpec(name="resnet10"), "torchvision", "timm has"),
        (EncoderSpec(name="timm/test_vit"), "torchvision", "not a network of torchvision: export it to timm"),
        (EncoderSpec(name="torchvision/vgg11"), "timm", "not a network of timm"),
        (EncoderSpec(name="custom"), "timm", "not a network of timm: it loads in moco only"),
    ],
)
def test_a_network_that_the_library_has_not_is_refused(spec: EncoderSpec, to: str, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        library_equivalent(spec, to, 64)


def test_a_network_of_equal_names_and_other_features_is_found_out(saved, tmp_path, monkeypatch) -> None:
    folder, _ = saved(EncoderSpec(name="resnet50"))
    out = tmp_path / "out.safetensors"
    out.write_text("older")
    monkeypatch.setattr(libraries, "library_equivalent", lambda *_: Call("timm", "resnet50", {"output_stride": 16}))
    with pytest.raises(WeightsError, match="gives other features"):
        export(folder, to="timm", out=out, overwrite=True)
    assert out.read_text() == "older"
    assert {file.name for file in tmp_path.iterdir()} == {"encoder", "out.safetensors"}


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (Call("torchvision", "resnet34"), r"layer1\.2\.conv1\.weight"),  # more layers
        (Call("timm", "resnet26"), "do not fit"),
        (Call("torchvision", "resnet18", {"width_per_group": 128}), "BasicBlock|do not fit"),
    ],
)
def test_a_network_of_other_names_or_shapes_is_found_out(saved, tmp_path, monkeypatch, call, found) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    monkeypatch.setattr(libraries, "library_equivalent", lambda *_: call)
    with pytest.raises(ValueError, match=found):
        export(folder, to="torchvision", out=tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_features_that_are_not_numbers_are_found_out(tmp_path) -> None:
    spec = EncoderSpec(name="resnet18")
    encoder = build_headless(spec)
    nn.init.constant_(encoder.backbone.conv1.weight, 3e38)  # finite, and its sums are not
    save_encoder(tmp_path / "encoder", encoder, recipe=Recipe(name="r", encoder=spec), facts={})
    with pytest.raises(WeightsError, match="gives other features: they differ by nan"):
        export(tmp_path / "encoder", to="torchvision", out=tmp_path / "out.pth")


def test_an_unknown_library_or_ending_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="unknown format 'torchvison': did you mean torchvision"):
        export(tmp_path, to="torchvison", out=tmp_path / "out.pth")
    with pytest.raises(WeightsError, match=r"ends in \.safetensors, \.pth or \.pt"):
        export(tmp_path, to="timm", out=tmp_path / "out.onnx")


def test_what_is_there_is_replaced_only_when_asked_and_paths_may_be_text(saved, tmp_path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    for name in ("out.pth", "out.yaml"):  # the settings count too
        (tmp_path / name).write_text("older")
        with pytest.raises(RecipeError, match=rf"{name} exists: give --overwrite"):
            export(str(folder), to="detectron2", out=str(tmp_path / "out.pth"))
        assert (tmp_path / name).read_text() == "older"
        (tmp_path / name).unlink()
    (tmp_path / "out.pth").write_text("older")
    export(str(folder), to="detectron2", out=str(tmp_path / "out.pth"), overwrite=True)
    assert len(torch.load(tmp_path / "out.pth", weights_only=True)["model"]) > 10
    assert {file.name for file in tmp_path.iterdir()} == {"encoder", "out.pth", "out.yaml"}


def test_an_export_refuses_to_replace_a_file_that_it_reads(saved, tmp_path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    for weights in (folder, folder / "model.safetensors"):
        with pytest.raises(RecipeError, match="is read by this command, and must not be overwritten"):
            export(weights, to="timm", out=folder / "model.safetensors", overwrite=True)


def test_leftovers_of_a_killed_export_are_removed_by_the_next_one(saved, tmp_path) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))
    child = os.fork()
    if child == 0:
        with open_staged_files([tmp_path / "out.pth"], overwrite=False) as (file,):
            file.write(b"half")
            file.flush()
            os._exit(1)  # as if killed
    os.waitpid(child, 0)
    assert (tmp_path / ".out.pth.moco-partial" / "new" / "out.pth").read_text() == "half"
    export(folder, to="torchvision", out=tmp_path / "out.pth")
    assert {file.name for file in tmp_path.iterdir()} == {"encoder", "out.pth"}


def test_a_full_disk_in_an_export_to_hf_is_an_oserror_and_leaves_nothing(saved, tmp_path, monkeypatch) -> None:
    folder, _ = saved(EncoderSpec(name="resnet18"))

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(hf, "save_for_hf", full)
    with pytest.raises(OSError, match=r"cannot be written: .*No space left on device"):
        export(folder, to="hf", out=tmp_path / "hub")
    assert {file.name for file in tmp_path.iterdir()} == {"encoder"}


def test_an_export_that_is_refused_leaves_no_folder(tmp_path: Path):
    with pytest.raises(WeightsError):
        export(tmp_path / "missing.pth", to="torchvision", out=tmp_path / "new" / "folder" / "x.pth")
    assert list(tmp_path.iterdir()) == []
