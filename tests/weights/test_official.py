"""Files of MoCo's authors are read: every layout, every prefix, every part; and what looks like one and is not."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.weights.detectron2 import to_detectron2
from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.infer_architecture import other_number_of_heads, recognise_network
from moco.weights.load import read_weights
from tests.weights import reference_files

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
X32 = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
F_Q = {"v1": "encoder_q.", "v2": "encoder_q.", "v3 resnet": "base_encoder.", "v3 vit": "base_encoder."}


def written(folder: Path, content: object, name: str = "checkpoint.pth.tar") -> Path:
    torch.save(content, folder / name)
    return folder / name


def network_of(content: dict[str, Any], name: str) -> nn.Module:
    """Their network with the file's weights, and its head."""
    prefix = "module." + F_Q[name]
    state = {key.removeprefix(prefix): value for key, value in content["state_dict"].items() if key.startswith(prefix)}
    network = reference_files.micro_vit() if name == "v3 vit" else reference_files.resnet(head=name.partition(" ")[0])
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("name", list(F_Q))
@pytest.mark.parametrize("form", ["whole", "stripped", "without module", "bare"])
def test_every_layout_gives_the_features_of_their_network(tmp_path: Path, name: str, form: str) -> None:
    content = reference_files.FILES[name]()
    network = network_of(content, name)
    if form == "stripped":
        content = reference_files.stripped(content, keep=F_Q[name])
    state = {key.removeprefix("module."): value for key, value in content["state_dict"].items()}
    if form == "without module":
        content["state_dict"] = state
    encoder, config = load_encoder(written(tmp_path, state if form == "bare" else content))
    x = X32 if name == "v3 vit" else X
    setattr(network, "head" if name == "v3 vit" else "fc", nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), network(x), rtol=1e-5, atol=1e-5)
    assert config.data.size == (32 if name == "v3 vit" else 224)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "v1",
            ["MoCo v1", "resnet18", "linear to 16", "queue: 32 keys", "f_k: 122 tensors", "its state", "epoch: 200"],
        ),
        (
            "v2",
            ["MoCo v2", "resnet18", "mlp to 16", "queue: 32 keys", "f_k: 124 tensors", "its state", "arch: resnet18"],
        ),
        ("v3 resnet", ["MoCo v3", "resnet18", "projector2 to 16", "predictor: 7 tensors", "its state", "epoch: 100"]),
        ("v3 vit", ["MoCo v3", "vit_micro", "projector3 to 16", "predictor: 10 tensors", "f_k: 58 tensors"]),
        ("linear probe", ["linear probe", "resnet18", "linear classifier: of 10 classes", "epoch: 200"]),
    ],
)
def test_the_contents_of_the_file_are_reported(tmp_path: Path, name: str, words: list[str]) -> None:
    note = load_encoder(written(tmp_path, reference_files.FILES[name]()))[1].note
    assert [word for word in words if word not in note] == []


def test_missing_parts_of_a_released_file_are_reported(tmp_path: Path) -> None:
    note = load_encoder(written(tmp_path, reference_files.stripped(reference_files.v2(), keep="encoder_q.")))[1].note
    for word in ("f_k: none", "queue: none", "optimizer: none"):
        assert word in note


def test_unknown_tensor_names_are_reported(tmp_path: Path) -> None:
    content = reference_files.v1()
    content["state_dict"]["module.teacher.weight"] = torch.zeros(1)
    assert "not known: teacher.weight" in load_encoder(written(tmp_path, content))[1].note


@pytest.mark.parametrize("name", ["v1", "v2", "v3 resnet", "v3 vit"])
def test_the_head_comes_with_f_q(tmp_path: Path, name: str) -> None:
    content = reference_files.FILES[name]()
    found = read_weights(file := written(tmp_path, content), whole=True)
    assert found.guess is not None
    size = 32 if name == "v3 vit" else 64
    encoder = build(found.guess, size=size).eval()
    assert initialize(encoder, file).endswith("and its head too")
    x = X32 if size == 32 else X
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), network_of(content, name)(x), rtol=1e-5, atol=1e-5)


def test_the_queue_has_keys_in_rows_and_the_authors_file_in_columns(tmp_path: Path) -> None:
    content = reference_files.v1()
    queue = read_weights(written(tmp_path, content), whole=True).queue
    for key in range(reference_files.K):
        assert torch.equal(queue["keys"][key], content["state_dict"]["module.queue"][:, key])
    assert queue["oldest"].item() == content["state_dict"]["module.queue_ptr"].item() == 8


def test_f_k_is_their_key_encoder_and_not_f_q(tmp_path: Path) -> None:
    content = reference_files.v2()
    found = read_weights(written(tmp_path, content), whole=True)
    state = content["state_dict"]
    assert torch.equal(found.f_k["backbone.conv1.weight"], state["module.encoder_k.conv1.weight"])
    assert torch.equal(found.f_k["head.2.weight"], state["module.encoder_k.fc.2.weight"])
    assert not torch.equal(found.f_k["backbone.conv1.weight"], found.backbone["conv1.weight"])


def test_a_file_in_torchs_format_before_1_6_is_read(tmp_path: Path) -> None:
    torch.save(reference_files.v1(), tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert load_encoder(tmp_path / "old.pth.tar")[1].encoder.name == "resnet18"


def test_a_file_with_the_key_encoder_alone_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, reference_files.stripped(reference_files.v1(), keep="encoder_k."))
    with pytest.raises(WeightsError, match=r"no encoder_q\.\*, the query encoder"):
        load_encoder(file)


def test_a_file_of_deit_is_a_vit_with_12_heads(tmp_path: Path) -> None:
    network = reference_files.trained(reference_files.micro_vit())
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("head.")}
    encoder, config = load_encoder(written(tmp_path, {"model": state}))
    network.head = nn.Identity()
    assert config.encoder.name == "vit_micro"
    with torch.no_grad():
        torch.testing.assert_close(encoder(X32), network(X32), rtol=1e-5, atol=1e-5)


def test_a_linear_probe_of_a_vit_loses_its_classifier(tmp_path: Path) -> None:
    network = reference_files.micro_vit()
    network.head = nn.Linear(64, 5)
    note = load_encoder(written(tmp_path, reference_files.saved(network, arch="vit_micro")))[1].note
    assert "linear classifier: of 5 classes" in note
    assert "its classifier (head.weight, head.bias) was left out" in note


def test_a_file_of_detectron2_is_read(tmp_path: Path) -> None:
    network = reference_files.trained(reference_files.resnet(head="v1"))
    network.fc = nn.Identity()
    state = {to_detectron2(key): value for key, value in network.state_dict().items() if "num_batches" not in key}
    file = written(tmp_path, {"model": state, "__author__": "somebody", "matching_heuristics": True}, "d2.pth")
    with torch.no_grad():
        torch.testing.assert_close(load_encoder(file)[0](X), network(X), rtol=1e-5, atol=1e-5)


# A ViT-S has 12 heads with MoCo v3 and 6 with timm, and all shapes agree: nothing may load into the other.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped file of a ViT-S of MoCo v3."""
    with torch.random.fork_rng():
        network = reference_files.vit(depth=12)
    state = {f"module.base_encoder.{key}": value for key, value in network.state_dict().items()}
    file = tmp_path_factory.mktemp("vit") / "vit-s.pth.tar"
    torch.save({"epoch": 300, "arch": "vit_small", "state_dict": state}, file)
    return file


def test_a_vit_with_another_number_of_heads_loads_silently_and_gives_other_features(small: Path) -> None:
    encoder, _ = load_encoder(small)
    six = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    twelve = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for network, agrees in ((six, False), (twelve, True)):
            network.load_state_dict(encoder.backbone.state_dict())
            assert torch.allclose(network(x), encoder(x), atol=1e-4) == agrees


def test_the_wrong_architecture_is_refused_with_the_reason(small: Path) -> None:
    with pytest.raises(WeightsError, match="vit_small of MoCo v3 with 12 heads, and timm/vit_small_patch16_224 has 6"):
        load_encoder(small, architecture="timm/vit_small_patch16_224")


def test_the_wrong_f_q_is_refused_and_stays_as_it_was(small: Path) -> None:
    encoder = build(EncoderSpec(name="timm/vit_small_patch16_224"), size=224)
    before = encoder.backbone.norm.bias.clone()
    with pytest.raises(WeightsError, match=r"must not be loaded into.* 12 heads"):
        initialize(encoder, small)
    assert torch.equal(encoder.backbone.norm.bias, before)


def test_the_positions_give_moco_v3_away_in_a_bare_file(small: Path, tmp_path: Path) -> None:
    torch.save(load_encoder(small)[0].backbone.state_dict(), tmp_path / "bare.pth")
    assert load_encoder(tmp_path / "bare.pth")[1].encoder.name == "vit_small"
    with pytest.raises(WeightsError, match="12 heads"):
        load_encoder(tmp_path / "bare.pth", architecture="timm/vit_small_patch16_224")


def test_a_bare_vit_small_of_unknown_heads_is_not_guessed(small: Path, tmp_path: Path) -> None:
    state = load_encoder(small)[0].backbone.state_dict() | {"pos_embed": torch.randn(1, 197, 384)}
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match=r"has 6 .*vit_small has 12"):
        load_encoder(tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="its ViT-S can have 12 heads"):
        initialize(build(EncoderSpec(name="vit_small", head="projector3", hidden=8), size=224), tmp_path / "bare.pth")
    assert load_encoder(tmp_path / "bare.pth", architecture="vit_small")[1].encoder.name == "vit_small"
    six, _ = load_encoder(tmp_path / "bare.pth", architecture="timm/vit_small_patch16_224")
    assert six.backbone.blocks[0].attn.num_heads == 6


def test_timms_vit_base_has_the_same_heads_and_passes() -> None:
    with torch.device("meta"):
        state = timm.create_model("vit_base_patch16_224", num_classes=0).state_dict()
    state["pos_embed"] = reference_files.sincos(timm.create_model("vit_base_patch16_224", depth=1))
    guess = recognise_network(state)
    assert guess is not None
    assert guess.name == "vit_base"
    assert other_number_of_heads(state, guess, "timm/vit_base_patch16_224") is None


@pytest.mark.parametrize(
    ("leftover", "plain"),
    [
        (argparse.Namespace(lr=0.03, best=np.float32(0.5)), {"lr": 0.03, "best": 0.5}),
        ((np.float64(71.1), np.int64(-3), np.bool_(True)), (71.1, -3, True)),
    ],
    ids=["namespace", "numpy"],
)
def test_namespaces_of_a_training_script_are_read_as_plain_values(
    tmp_path: Path, leftover: object, plain: object
) -> None:
    file = written(tmp_path, reference_files.v1() | {"args": leftover})
    found = read_weights(file)
    assert found.content["args"] == plain
    assert type(found.content["args"]) is type(plain)


def test_a_numpy_array_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    content = reference_files.v1()
    plain, beside = (load_encoder(written(tmp_path, one)) for one in (content, content | {"args": np.zeros(3)}))
    assert beside[1].note == plain[1].note
    for name, tensor in plain[0].state_dict().items():
        assert torch.equal(beside[0].state_dict()[name], tensor)


def test_a_supervised_checkpoint_is_not_taken_for_a_linear_probe(tmp_path: Path) -> None:
    """The same names as of main_lincls.py, but its optimizer has all parameters."""
    content = reference_files.saved(reference_files.trained(reference_files.Narrow(10)), arch="resnet18")
    assert "layout: state dict; " in load_encoder(written(tmp_path, content))[1].note
    del content["optimizer"]
    assert "layout: state dict; " in load_encoder(written(tmp_path, content))[1].note


def test_an_encoder_beside_a_momentum_encoder_is_not_of_moco_v3(tmp_path: Path) -> None:
    network = reference_files.resnet(head="v1")
    state = {f"{part}.{key}": x for part in ("encoder", "momentum_encoder") for key, x in network.state_dict().items()}
    assert "MoCo v3" not in load_encoder(written(tmp_path, state))[1].note


@pytest.mark.parametrize(
    ("queue", "pointer", "said"),
    [
        (torch.zeros(5), 0, r"of shape \[5\]: expected floating-point numbers C x K"),
        (torch.zeros(16, 32), 32, r"queue_ptr in .* is \[32\]: expected the index of one of the 32 keys"),
        (torch.zeros(16, 32, dtype=torch.int64), 0, "torch.int64 of shape"),
    ],
)
def test_an_invalid_queue_is_refused(tmp_path: Path, queue: torch.Tensor, pointer: int, said: str) -> None:
    content = reference_files.v1()
    content["state_dict"] |= {"module.queue": queue, "module.queue_ptr": torch.tensor([pointer])}
    with pytest.raises(WeightsError, match=said):
        read_weights(written(tmp_path, content))
