"""Checkpoints of other tools: which network in a file becomes the encoder, and what goes with it."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import initialize, load_encoder
from moco.weights.errors import WeightsError
from moco.weights.export import export
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights
from moco.weights.other_tools import choose_encoder
from moco.weights.parse_content import parse_content
from tests.weights.other_tools_files import (
    CASES,
    DIM,
    assert_gives,
    of_dino,
    of_lightly_moco,
    of_solo_moco,
    prefixed,
    written,
)


@pytest.mark.parametrize("name", list(CASES))
def test_a_checkpoint_of_another_tool_is_read_and_gives_the_same_features(tmp_path: Path, name: str) -> None:
    case = CASES[name]()
    file = written(tmp_path, case.content)
    import_weights(file, out=tmp_path / "imported", architecture=case.architecture)
    assert_gives(load_encoder(tmp_path / "imported")[0], case.encoder)


@pytest.mark.parametrize("name", [name for name, make in CASES.items() if make().trained])
def test_training_continues_from_the_trained_network_and_its_average(tmp_path: Path, name: str) -> None:
    case = CASES[name]()
    assert case.trained is not None
    found = read_weights(written(tmp_path, case.content), whole=True)
    assert found.guess is not None
    f_q = build(found.guess, size=32 if "dino" in name else 64).eval()
    initialize(f_q, found)
    assert_gives(nn.Sequential(f_q.backbone), case.trained)
    f_q.backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in found.f_k.items() if "backbone." in k})
    assert_gives(nn.Sequential(f_q.backbone), case.encoder)


def test_training_continues_from_solo_learns_head_and_queue(tmp_path: Path) -> None:
    case = of_solo_moco()
    state = case.content["state_dict"]
    import_weights(written(tmp_path, case.content), out=tmp_path / "imported")
    found = read_weights(tmp_path / "imported", whole=True)
    assert found.spec is not None
    assert (found.spec.head, found.spec.dim) == ("mlp", DIM)
    assert initialize(build(found.spec), found).endswith("and its head too")
    assert torch.equal(found.head["2.weight"], state["projector.2.weight"])
    assert torch.equal(found.f_k["head.2.weight"], state["momentum_projector.2.weight"])
    assert torch.equal(found.queue["keys"], state["queue"][0].T)  # of the first view
    assert found.queue["oldest"].item() == 8


def test_head_and_f_k_of_lightly_go_out_as_an_official_file(tmp_path: Path) -> None:
    case = of_lightly_moco()
    export(written(tmp_path, case.content), to="fair", out=tmp_path / "out.pth.tar")
    state = torch.load(tmp_path / "out.pth.tar", weights_only=True)["state_dict"]
    ours = case.content["state_dict"]
    assert torch.equal(state["module.encoder_q.conv1.weight"], ours["backbone.0.weight"])
    assert torch.equal(state["module.encoder_k.layer4.1.bn2.bias"], ours["backbone_momentum.7.1.bn2.bias"])
    assert torch.equal(state["module.encoder_q.fc.2.weight"], ours["projection_head.layers.2.weight"])


def test_the_import_report_names_the_network_that_is_used(tmp_path: Path) -> None:
    said = import_weights(written(tmp_path, of_dino().content), out=tmp_path / "imported")
    assert "layout: DINO" in said
    assert (
        "encoder tensors: teacher.backbone.*, the moving average of student.backbone.* (training continues from both)"
        in said
    )
    assert "other tensors: teacher. (6 tensors), student. (6 tensors)" in said


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny", "maxvit_t", "densenet121"])
def test_no_part_of_torchvisions_own_networks_is_taken_for_the_network(name: str) -> None:
    with torch.device("meta"):
        state = models.get_model(name).state_dict()
    assert choose_encoder(state, "").prefix == ""


@pytest.mark.parametrize(
    "name", ["volo_d1_224", "coat_tiny", "efficientformer_l1", "resnetv2_50", "vit_small_r26_s32_224"]
)
def test_no_part_of_timms_own_networks_is_taken_for_the_network(name: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    assert choose_encoder(state, "").prefix == ""


def test_a_small_vit_of_dino_has_6_heads() -> None:
    network = timm.create_model("vit_small_patch16_224", num_classes=0)
    parts = {"teacher": prefixed("backbone.", network), "student": prefixed("module.backbone.", network)}
    assert parse_content(parts, "").guess == EncoderSpec(name="timm/vit_small_patch16_224")


@pytest.mark.parametrize("keys", [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_a_network_and_its_average_are_called_as_in_the_file(tmp_path: Path, keys: tuple[str, str]) -> None:
    trained, average = keys
    networks = [models.resnet18(), models.resnet18()]
    torch.save({key: network.state_dict() for key, network in zip(keys, networks, strict=True)}, tmp_path / "file.pth")
    summary = read_weights(tmp_path / "file.pth").summary
    assert f"{average}.*" in summary
    assert f"{trained}.*" in summary


@pytest.mark.parametrize("name", ["resnet50d", "vit_tiny_patch16_224"])
def test_the_name_that_a_file_gives_of_its_network_is_proposed(tmp_path, name):
    network = timm.create_model(name, num_classes=0)
    torch.save({"arch": name, "state_dict": network.state_dict()}, tmp_path / "named.pth")
    torch.save({"arch": "a name\nof two lines", "state_dict": network.state_dict()}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=f"the file says {name}, which in timm is timm/{name}"):
        load_encoder(tmp_path / "named.pth")
    with pytest.raises(WeightsError, match="give --architecture, such as timm/"):
        load_encoder(tmp_path / "odd.pth")
    assert load_encoder(tmp_path / "named.pth", architecture=f"timm/{name}")[0].num_features == network.num_features
