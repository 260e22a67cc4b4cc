"""Export a ResNet for Detectron2: its weights under Detectron2's names, and a file of settings.

The weights can be loaded with weights_only=True. "matching_heuristics" in the file makes Detectron2 match names by
their ends: a C4 detector has res5 in its box head, under a longer name.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from moco.atomic_output import stage_paths
from moco.files import write_atomically, write_text
from moco.recipe import EncoderSpec
from moco.weights.detectron2 import from_detectron2, to_detectron2
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import plain
from moco.weights.export_paths import export_files
from moco.weights.infer_architecture import recognise_network
from moco.weights.loaded_weights import Config, Weights, WeightsError
from moco.weights.tensors import read_tensors, same_tensors

DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {  # by (basic blocks, blocks of each stage)
    (True, (2, 2, 2, 2)): 18,
    (True, (3, 4, 6, 3)): 34,
    (False, (3, 4, 6, 3)): 50,
    (False, (3, 4, 23, 3)): 101,
    (False, (3, 8, 36, 3)): 152,
}
YAML = """\
# Settings for {file}. Without STRIDE_IN_1X1: False, the weights load into a different network.
MODEL:
  WEIGHTS: {file}
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
  BACKBONE:
    FREEZE_AT: 0
  RESNETS:
    DEPTH: {depth}
    NUM_GROUPS: {groups}
    WIDTH_PER_GROUP: {group_width}
    STEM_OUT_CHANNELS: {stem}
    RES2_OUT_CHANNELS: {res2}
    STRIDE_IN_1X1: False
    NORM: SyncBN
INPUT:
  FORMAT: RGB
"""


def to_detectron2_file(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    """Write `out` (.pth) and the settings beside it (.yaml)."""
    encoder, config = load_encoder(weights, architecture=architecture)
    tensors = plain(encoder.backbone.state_dict())
    state = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    fields = detectron2_settings(state, config, file=json.dumps(out.name))
    content = {
        "model": {to_detectron2(key): value for key, value in state.items()},
        "__author__": "momentum-contrast",
        "matching_heuristics": True,
    }
    with stage_paths(export_files(out, "detectron2"), overwrite=overwrite) as (aside, settings_aside):
        write_atomically(aside, lambda file: torch.save(content, file))
        back = {from_detectron2(key): value for key, value in read_tensors(aside)["model"].items()}
        if not same_tensors(back, state):
            raise WeightsError(f"{out} does not contain what was written: the disk or moco is at fault")
        write_text(settings_aside, YAML.format(**fields))
    return (
        f"{out} holds {len(state)} tensors under Detectron2's names, without the classifier. They were read back and "
        f"are equal to the encoder's, bit for bit.\nMerge the settings in {out.with_suffix('.yaml')} into your own. "
        f"Their WEIGHTS is {out.name}: Detectron2 looks for it in the folder where it is started."
    )


def detectron2_settings(state: dict[str, Tensor], config: Config, *, file: str) -> dict[str, object]:
    """The fields of `YAML` for a ResNet with torchvision's names.

    Raises:
        WeightsError: it is not a ResNet, or Detectron2 does not have it.
    """
    if config.encoder.channels != 3:
        raise WeightsError(
            f"Detectron2's networks take 3 channels, and this {config.encoder.name} takes {config.encoder.channels}: "
            "export it --to timm"
        )
    if "conv1.weight" not in state or recognise_network(state) is None:
        raise WeightsError(
            f"Detectron2 has only ResNets with ImageNet's 7x7 stem, and this {config.encoder.name} is not one: "
            "export it --to timm"
        )
    blocks = tuple(len({key.split(".")[1] for key in state if key.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
    basic = "layer1.0.conv3.weight" not in state
    depth, stem = DEPTHS.get((basic, blocks)), len(state["conv1.weight"])
    if depth is None or (basic and stem != 64):
        raise WeightsError(
            f"Detectron2 has no ResNet with {blocks} {'basic' if basic else 'bottleneck'} blocks and a stem of {stem} "
            f"channels, which {config.encoder.name} is: export it --to timm"
        )
    inner = state["layer1.0.conv2.weight"]
    groups = state["layer1.0.conv1.weight"].shape[0] // inner.shape[1]
    return {
        "file": file, "depth": depth, "groups": groups, "group_width": inner.shape[1],
        "stem": stem, "res2": len(state[f"layer1.0.conv{2 if basic else 3}.weight"]),
        "mean": [round(255 * value, 3) for value in config.data.mean],
        "std": [round(255 * value, 3) for value in config.data.std],
    }  # fmt: skip
