"""Files that others wrote: the libraries' state dicts, and files that are not what they seem."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TheirResNet

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import WeightsError, load_encoder
from tests.weights.small_encoders import Hostile


@pytest.mark.parametrize(
    ("make", "name", "width"),
    [
        (lambda: models.resnet18(), "resnet18", 1),
        (lambda: models.resnet50(), "resnet50", 1),
        (lambda: TheirResNet(BasicBlock, [1, 1, 1, 1]), "resnet10", 1),
        pytest.param(
            lambda: models.resnet50(groups=32, width_per_group=8), "resnext50_32x8d", 1, marks=pytest.mark.slow
        ),
        (lambda: build(EncoderSpec(name="resnet18", width=0.25)).backbone, "resnet18", 0.25),
        (lambda: models.resnext50_32x4d(), "torchvision/resnext50_32x4d", 1),
        pytest.param(lambda: models.wide_resnet50_2(), "torchvision/wide_resnet50_2", 1, marks=pytest.mark.slow),
    ],
)
def test_a_resnet_is_recognised_by_its_names_and_shapes(tmp_path: Path, make, name: str, width: float) -> None:
    network = make().eval()
    torch.save(network.state_dict(), tmp_path / "some.pth")
    encoder, config = load_encoder(tmp_path / "some.pth")
    assert (config.encoder.name, config.encoder.width) == (name, width)
    network.fc = nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), network(x), rtol=1e-6, atol=1e-6)


def test_a_classifier_is_skipped_and_named(tmp_path: Path) -> None:
    torch.save(models.resnet18(num_classes=7).state_dict(), tmp_path / "tuned.pth")
    _, config = load_encoder(tmp_path / "tuned.pth")
    assert "its classifier (fc.weight, fc.bias) was left out" in config.note


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_state_dict_of_a_training_script_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    state = models.resnet18().state_dict()
    torch.save({wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "last.pt")
    encoder, _ = load_encoder(tmp_path / "last.pt")
    assert torch.equal(encoder.backbone.conv1.weight, state["conv1.weight"])


def test_a_file_without_bn_counters_is_read(tmp_path: Path) -> None:
    state = {k: v for k, v in models.resnet18().state_dict().items() if "num_batches" not in k}  # before torch 0.4.1
    torch.save(state, tmp_path / "old.pth")
    assert load_encoder(tmp_path / "old.pth")[1].encoder.name == "resnet18"


def test_another_network_is_loaded_when_its_name_is_given(tmp_path: Path) -> None:
    theirs = build(EncoderSpec(name="timm/test_convnext")).backbone
    save_file(theirs.state_dict(), tmp_path / "some.safetensors")
    with pytest.raises(WeightsError, match="does not show which network"):
        load_encoder(tmp_path / "some.safetensors")
    encoder, config = load_encoder(tmp_path / "some.safetensors", architecture="timm/test_convnext")
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in encoder.backbone.state_dict().items())
    assert config.data.size == 160  # timm's for these weights


def test_weights_of_another_network_are_refused_with_the_names(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "some.pth")
    with pytest.raises(WeightsError, match=r"missing: layer1\.2\.conv1\.weight, .* more"):
        load_encoder(tmp_path / "some.pth", architecture="resnet34")
    with pytest.raises(WeightsError, match=r"of another shape: conv1\.weight \[64, 3, 7, 7\] instead of"):
        load_encoder(tmp_path / "some.pth", architecture=EncoderSpec(name="resnet18", width=2))
    torch.save(models.resnet18().state_dict() | {"extra.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"unexpected: extra\.weight"):
        load_encoder(tmp_path / "more.pth", architecture="resnet18")


@pytest.mark.parametrize("name", ["weights.pth", "checkpoints/step_00000001.pt"])
def test_a_hostile_file_is_refused_and_nothing_in_it_is_executed(tmp_path: Path, name: str) -> None:
    proof = tmp_path / "proof"
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    torch.save({"conv1.weight": Hostile(proof)}, file)
    with pytest.raises(WeightsError, match=r"would execute .*system.*nothing in it was executed"):
        load_encoder(file if name == "weights.pth" else tmp_path)
    assert not proof.exists()
    torch.load(file, weights_only=False)  # it would have
    assert proof.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["some.pth", "some.safetensors"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_encoder(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {}, {"recipe": "{}", "state": {}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "some.pt")
    with pytest.raises(WeightsError, match=r"state dict|not a checkpoint"):
        load_encoder(tmp_path / "some.pt")
