"""Checkpoints of other tools, made of torchvision's and timm's networks by what is known of the tools' layouts."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.export import export
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights
from moco.weights.other_tools import choose_encoder
from moco.weights.parse_content import parse_content
from tests.weights import theirs

State = dict[str, Tensor]
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
DIM, K = 16, 32


class Case(NamedTuple):
    """A file of a tool."""

    content: dict[str, Any]
    encoder: nn.Module  # whose features are expected
    trained: nn.Module | None = None  # where the encoder is its moving average
    architecture: str | None = None


def narrow() -> nn.Module:
    """torchvision's ResNet-18, an eighth as wide, as a backbone."""
    network = theirs.trained(theirs.Narrow(10))
    for parameter in network.parameters():  # `trained` seeds: two of these differ all the same
        nn.init.normal_(parameter, 0.05, 0.1)
    network.fc = nn.Identity()
    return network.eval()


def small() -> nn.Module:
    """The same with the stem that is for small images."""
    network = narrow()
    network.conv1, network.maxpool = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Identity()
    return network


def micro_vit() -> nn.Module:
    """DINO's kind of ViT, with positions that are trained."""
    network = theirs.micro_vit()
    nn.init.normal_(network.pos_embed)
    network.head = nn.Identity()
    return network.eval()


def mlp(features: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, DIM))


def prefixed(prefix: str, module: nn.Module) -> State:
    return {prefix + key: value.clone() for key, value in module.state_dict().items()}


def numbered(prefix: str, network: nn.Module, *, lightlys: bool = False) -> State:
    """By the numbers in `nn.Sequential(*list(network.children())[:-1])`; lightly's ResNets lack two of the modules."""
    parts = {name: i for i, (name, _) in enumerate(network.named_children())}
    if lightlys:  # conv1, bn1, layer1 ...
        parts = {"conv1": 0, "bn1": 1} | {f"layer{i}": 1 + i for i in (1, 2, 3, 4)}
    state = {}
    for key, value in network.state_dict().items():
        part, _, rest = key.partition(".")
        state[f"{prefix}{parts[part]}.{rest.replace('downsample', 'shortcut') if lightlys else rest}"] = value
    return state


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "state_dict": state, "loops": {},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "best_model_path": "a.ckpt"}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [], "hyper_parameters": {"lr": 0.1},
    }  # fmt: skip


def of_lightning() -> Case:
    network = narrow()
    return Case(lightning(prefixed("backbone.", network) | prefixed("classifier.", nn.Linear(64, 5))), network)


def of_lightning_compiled() -> Case:
    network = narrow()
    return Case(lightning(prefixed("model._orig_mod.module.", network)), network)


def of_lightly_moco() -> Case:
    encoder, trained = narrow(), narrow()
    state = numbered("backbone.", trained) | numbered("backbone_momentum.", encoder)
    state |= prefixed("projection_head.layers.", mlp()) | prefixed("projection_head_momentum.layers.", mlp())
    return Case(lightning(state), encoder, trained)


def of_lightly_simclr_of_small_images() -> Case:
    network = small()
    state = numbered("backbone.", network, lightlys=True) | prefixed(
        "projection_head.layers.", theirs.mlp(2, 64, last_bn=True)
    )
    return Case(lightning(state), network)


def of_lightly_dino() -> Case:
    encoder, trained = narrow(), narrow()
    state = prefixed("student_backbone.", trained) | prefixed("teacher_backbone.", encoder)
    return Case(lightning(state | prefixed("student_head.layers.", mlp())), encoder, trained)


def of_solo_moco() -> Case:
    encoder, trained = narrow(), narrow()
    state = prefixed("backbone.", trained) | prefixed("momentum_backbone.", encoder)
    state |= prefixed("projector.", mlp()) | prefixed("momentum_projector.", mlp())
    state |= prefixed("classifier.", nn.Linear(64, 5)) | prefixed("momentum_classifier.", nn.Linear(64, 5))
    state |= {"queue": nn.functional.normalize(torch.randn(2, DIM, K), dim=1), "queue_ptr": torch.tensor([8])}
    return Case(lightning(state), encoder, trained)


def of_solo_simclr() -> Case:
    network = narrow()
    state = prefixed("backbone.", network) | prefixed("projector.", mlp()) | prefixed("classifier.", nn.Linear(64, 5))
    return Case(lightning(state), network)


def of_dino() -> Case:
    encoder, trained = micro_vit(), micro_vit()
    head = nn.ModuleDict({"mlp": mlp(), "last_layer": nn.utils.weight_norm(nn.Linear(DIM, 40, bias=False))})
    student = prefixed("module.backbone.", trained) | prefixed("module.head.", head)
    teacher = prefixed("backbone.", encoder) | prefixed("head.", head)
    content = {
        "student": student, "teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="vit_small", lr=5e-4),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-3), "params": [0, 1]}]}, "fp16_scaler": None,
        "dino_loss": {"center": torch.zeros(1, 40)},
    }  # fmt: skip
    return Case(content, encoder, trained)


def of_dino_teacher_alone() -> Case:
    network = narrow()
    return Case({"teacher": prefixed("backbone.", network) | prefixed("dino_head.", mlp())}, network)


def of_timms_training() -> Case:
    encoder, trained = narrow(), narrow()
    content = {
        "epoch": 9, "arch": "resnet18", "state_dict": trained.state_dict(), "state_dict_ema": encoder.state_dict(),
        "version": 2, "args": argparse.Namespace(model="resnet18", lr=0.1), "metric": np.float64(71.1),
        "optimizer": {"state": {}, "param_groups": [{"params": [0, 1, 2]}]},
    }  # fmt: skip
    return Case(content, encoder, trained)


def of_torchvisions_training() -> Case:
    encoder, trained = narrow(), narrow()
    average = {"n_averaged": torch.tensor(5)} | prefixed("module.", encoder)
    content = {"model": trained.state_dict(), "model_ema": average, "epoch": 2, "args": argparse.Namespace(lr=1)}
    return Case(content | {"lr_scheduler": {"last_epoch": 2}}, encoder, trained)


def of_deepspeed() -> Case:
    network = narrow()
    return Case({"module": prefixed("module.", network), "dp_world_size": 2, "global_steps": 5}, network)


def of_a_target_encoder() -> Case:
    encoder, trained = narrow(), narrow()
    state = prefixed("online_encoder.net.", trained) | prefixed("online_encoder.projector.", mlp())
    state |= prefixed("target_encoder.net.", encoder) | prefixed("target_encoder.projector.", mlp())
    return Case(state | prefixed("online_predictor.", mlp(DIM)), encoder, trained)


def of_a_momentum_encoder() -> Case:
    encoder, trained = narrow(), narrow()
    return Case(
        prefixed("encoder.", trained) | prefixed("momentum_encoder.", encoder) | {"queue": torch.zeros(3)},
        encoder, trained,
    )  # fmt: skip


def of_mmselfsup() -> Case:
    network = narrow()
    state = prefixed("backbone.", network) | prefixed("neck.mlp.", mlp()) | prefixed("head.", nn.Linear(1, 1))
    return Case({"meta": {"epoch": 3}, "state_dict": state}, network)


def of_timms_network_in_a_wrapper() -> Case:
    network = timm.create_model("test_convnext", num_classes=0).eval()
    state = prefixed("module._orig_mod.backbone.", network) | prefixed("module._orig_mod.head.", nn.Linear(3, 3))
    return Case({"state_dict": state}, network, architecture="timm/test_convnext")


def of_torchvisions_network_in_a_wrapper() -> Case:
    network = models.shufflenet_v2_x0_5(weights=None).eval()
    state = prefixed("net.", network)
    network.fc = nn.Identity()
    return Case(lightning(state), network, architecture="torchvision/shufflenet_v2_x0_5")


CASES: dict[str, Callable[[], Case]] = {name: made for name, made in globals().items() if name.startswith("of_")}


def written(folder: Path, content: dict[str, Any]) -> Path:
    torch.save(content, folder / "theirs.ckpt")
    return folder / "theirs.ckpt"


def assert_gives(encoder: nn.Module, expected: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(encoder(X), expected(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(CASES))
def test_a_checkpoint_of_another_tool_comes_in_with_its_features(tmp_path: Path, name: str) -> None:
    case = CASES[name]()
    file = written(tmp_path, case.content)
    import_weights(file, out=tmp_path / "imported", architecture=case.architecture)
    assert_gives(load_encoder(tmp_path / "imported")[0], case.encoder)


@pytest.mark.parametrize("name", [name for name, make in CASES.items() if make().trained])
def test_training_goes_on_from_the_trained_network_and_its_average(tmp_path: Path, name: str) -> None:
    case = CASES[name]()
    assert case.trained is not None
    found = read_weights(written(tmp_path, case.content), whole=True)
    assert found.guess is not None
    f_q = build(found.guess, size=32 if "dino" in name else 64).eval()
    initialize(f_q, found)
    assert_gives(nn.Sequential(f_q.backbone), case.trained)
    f_q.backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in found.f_k.items() if "backbone." in k})
    assert_gives(nn.Sequential(f_q.backbone), case.encoder)


def test_head_and_queue_of_solo_learn_go_on(tmp_path: Path) -> None:
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


def test_what_was_taken_is_said(tmp_path: Path) -> None:
    said = import_weights(written(tmp_path, of_dino().content), out=tmp_path / "imported")
    assert "layout: DINO" in said
    assert "taken: teacher.backbone.*, the moving average of student.backbone.* (training goes on from both)" in said
    assert "besides: teacher. (6 tensors), student. (6 tensors)" in said


@pytest.mark.parametrize(
    "around", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_wrappers_are_left_out_in_any_order_and_depth(tmp_path: Path, around: str) -> None:
    network = narrow()
    assert_gives(load_encoder(written(tmp_path, prefixed(around, network)))[0], network)
    inside = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in prefixed(around, network).items()}
    assert_gives(load_encoder(written(tmp_path, inside))[0], network)


def test_the_same_name_with_a_wrapper_and_without_is_refused(tmp_path: Path) -> None:
    state = narrow().state_dict()
    file = written(tmp_path, state | {"_orig_mod.conv1.weight": state["conv1.weight"]})
    with pytest.raises(WeightsError, match=r"the same names with '_orig_mod\.' and without"):
        load_encoder(file)


def strange() -> tuple[State, nn.Module]:
    network = narrow()
    return prefixed("tower_a.", network) | prefixed("tower_b.", narrow()) | prefixed("mix.", nn.Linear(2, 2)), network


def test_prefixes_are_listed_with_the_number_of_their_tensors(tmp_path: Path) -> None:
    file = written(tmp_path, strange()[0])
    listed = r"tower_a\. \(120 tensors\), tower_b\. \(120 tensors\), mix\. \(2 tensors\) .*--prefix PREFIX"
    with pytest.raises(WeightsError, match=listed):
        load_encoder(file)
    with pytest.raises(WeightsError, match=listed):
        load_encoder(file, architecture="resnet18")


@pytest.mark.parametrize("prefix", ["tower_a", "tower_a."])
def test_a_prefix_is_chosen_by_the_user(tmp_path: Path, prefix: str) -> None:
    state, network = strange()
    file = written(tmp_path, state)
    assert_gives(load_encoder(file, prefix=prefix)[0], network)
    import_weights(file, out=tmp_path / "imported", prefix=prefix)
    assert_gives(load_encoder(tmp_path / "imported")[0], network)
    assert torch.equal(
        read_weights(tmp_path / "imported", whole=True).backbone["conv1.weight"], state["tower_a.conv1.weight"]
    )


def test_the_trained_network_can_be_chosen_instead_of_its_average(tmp_path: Path) -> None:
    case = of_solo_moco()
    assert case.trained is not None
    assert_gives(load_encoder(written(tmp_path, case.content), prefix="backbone.")[0], case.trained)


def test_a_prefix_that_no_name_has_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    file = written(tmp_path, strange()[0])
    with pytest.raises(WeightsError, match=r"begins with 'tower_c\.'; there are: tower_a"):
        load_encoder(file, prefix="tower_c")


def test_a_module_of_the_users_own_with_a_part_called_backbone_is_taken_whole(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.neck = narrow(), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.neck(self.backbone(x))

    source = Own().eval()
    file = written(tmp_path, {f"module.{key}": value for key, value in source.state_dict().items()})
    assert_gives(load_encoder(file, model=Own())[0], source)


def test_a_compiled_module_of_the_users_own_takes_its_weights_with_and_without_the_wrapper(tmp_path: Path) -> None:
    class Compiled(nn.Module):
        """As torch.compile wraps a module."""

        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = narrow()

        def forward(self, x: Tensor) -> Tensor:
            return self._orig_mod(x)

    source = narrow()
    for state in (source.state_dict(), prefixed("_orig_mod.", source)):
        compiled = Compiled()
        load_encoder(written(tmp_path, state), model=compiled)
        assert torch.equal(compiled._orig_mod.conv1.weight, source.conv1.weight)


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
