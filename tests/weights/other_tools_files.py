"""Checkpoints as other tools write them, made of torchvision's and timm's networks by what is known of the layouts."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from tests.weights import reference_files

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
    network = reference_files.trained(reference_files.Narrow(10))
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
    network = reference_files.micro_vit()
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
        "projection_head.layers.", reference_files.mlp(2, 64, last_bn=True)
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


def of_mmpretrains_moco() -> Case:
    encoder, trained = narrow(), narrow()
    state = prefixed("backbone.", trained) | prefixed("neck.mlp.", mlp())
    state |= prefixed("encoder_k.module.0.", encoder) | prefixed("encoder_k.module.1.mlp.", mlp())
    state |= {"encoder_k.steps": torch.tensor(4), "queue": torch.randn(DIM, K), "queue_ptr": torch.tensor([8])}
    state |= {"data_preprocessor.mean": torch.zeros(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}
    return Case({"meta": {"epoch": 3}, "state_dict": state, "message_hub": {"log_scalars": {}}}, encoder, trained)


def of_mmselfsups_moco() -> Case:
    encoder, trained = narrow(), narrow()
    state = prefixed("encoder_q.0.", trained) | prefixed("encoder_q.1.mlp.", mlp())
    state |= prefixed("encoder_k.0.", encoder) | prefixed("encoder_k.1.mlp.", mlp())
    state |= {"queue": torch.randn(DIM, K), "queue_ptr": torch.tensor([8])}
    return Case({"meta": {"epoch": 3}, "state_dict": state}, encoder, trained)


def of_vissl() -> Case:
    network = narrow()
    heads = {"0.clf.0.weight": torch.zeros(10, 64)}
    parts = {"trunk": prefixed("_feature_blocks.", network), "heads": heads}
    content = {"phase_idx": 9, "classy_state_dict": {"base_model": {"model": parts, "meters": {}}}, "iteration": 3}
    return Case(content, network)


def of_swav() -> Case:
    network = narrow()
    state = prefixed("module.", network) | prefixed("module.projection_head.", mlp())
    state |= {"module.prototypes.weight": torch.zeros(30, DIM)}
    return Case({"epoch": 3, "state_dict": state, "amp": {}}, network)


def of_mae() -> Case:
    network = micro_vit()
    state = network.state_dict() | {"decoder_pos_embed": torch.zeros(1, 5, 8), "mask_token": torch.zeros(1, 1, 8)}
    return Case({"model": state | prefixed("decoder_blocks.0.", nn.Linear(3, 3)), "epoch": 1}, network)


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
    torch.save(content, folder / "reference_files.ckpt")
    return folder / "reference_files.ckpt"


def assert_gives(encoder: nn.Module, expected: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(encoder(X), expected(X), rtol=1e-5, atol=1e-5)
