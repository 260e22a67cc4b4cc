"""Detectron2's names for the tensors of our detectors. No tensor is permuted: both have the background last."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from moco.recipe import RecipeError
from moco.text import first_few
from moco.transfer.models.fpn import FPN
from moco.weights.detectron2 import to_detectron2

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
PYRAMID: list[Rule] = [
    (r"^backbone\.body\.(.+)", lambda found: f"backbone.bottom_up.{to_detectron2(found[1])}"),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.", lambda found: f"backbone.fpn_lateral{int(found[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.", lambda found: f"backbone.fpn_output{int(found[1]) + 2}."),
]
SINGLE_MAP: list[Rule] = [(r"^backbone\.body\.(.+)", lambda found: f"backbone.{to_detectron2(found[1])}")]
COMMON: list[Rule] = [
    (r"^rpn\.head\.", "proposal_generator.rpn_head."),
    (r"\brpn_head\.conv\.0\.0\.", "rpn_head.conv."),
    (r"\brpn_head\.cls_logits\.", "rpn_head.objectness_logits."),
    (r"\brpn_head\.bbox_pred\.", "rpn_head.anchor_deltas."),
    (r"^heads\.res5\.(\d.+)", lambda found: f"roi_heads.{to_detectron2('layer4.' + found[1])}"),
    (r"^heads\.", "roi_heads."),
    (r"\bbox_head\.fc6\.", "box_head.fc1."),
    (r"\bbox_head\.fc7\.", "box_head.fc2."),
    (r"\bbranches\.mask\.head\.(\d)\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}."),
    (r"\bbranches\.mask\.predictor\.conv5_mask\.", "mask_head.deconv."),
    (r"\bbranches\.mask\.predictor\.mask_fcn_logits\.", "mask_head.predictor."),
    (r"\bbranches\.keypoints\.head\.(\d+)\.", lambda found: f"keypoint_head.conv_fcn{int(found[1]) // 2 + 1}."),
    (r"\bbranches\.keypoints\.predictor\.kps_score_lowres\.", "keypoint_head.score_lowres."),
    (r"\bbranches\.densepose\.head\.(\d+)\.", lambda found: f"densepose_head.body_conv_fcn{int(found[1]) // 2 + 1}."),
    (r"\bbranches\.densepose\.predictor\.coarse\.", "densepose_predictor.ann_index_lowres."),
    (r"\bbranches\.densepose\.predictor\.fine\.", "densepose_predictor.index_uv_lowres."),
    (r"\bbranches\.densepose\.predictor\.([uv])\.", r"densepose_predictor.\1_lowres."),
    # torchvision's convolution with BN is a Sequential of both
    (r"\b(fpn_\w+|mask_fcn\d)\.0\.", r"\1."),
    (r"\b(fpn_\w+|mask_fcn\d)\.1\.", r"\1.norm."),
]


def detectron2_names(detector: nn.Module) -> dict[str, str]:
    """Detectron2's name of every weight and BN statistic, by our name. Counts of batches are omitted."""
    first = PYRAMID if isinstance(detector.get_submodule("backbone"), FPN) else SINGLE_MAP
    ours = [name for name in detector.state_dict() if not name.endswith("num_batches_tracked")]
    return {name: rename(name, [*first, *COMMON]) for name in ours}


def detector_to_detectron2(detector: nn.Module) -> dict[str, Tensor]:
    """The detector's weights and BN statistics under Detectron2's names."""
    state = detector.state_dict()
    return {theirs: state[ours] for ours, theirs in detectron2_names(detector).items()}


def load_detectron2(detector: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy Detectron2's weights into the detector.

    Raises:
        RecipeError: a tensor is missing, not expected, or of another shape.
    """
    ours = detector_to_detectron2(detector)
    if differing := sorted(ours.keys() ^ state.keys()):
        raise RecipeError(
            f"these weights are of another detector: {len(differing)} names are in one of them only "
            f"({first_few(differing)})"
        )
    for name, x in ours.items():
        if x.shape != state[name].shape:
            raise RecipeError(
                f"these weights are of another detector: {name} has shape {tuple(state[name].shape)}, expected "
                f"{tuple(x.shape)}"
            )
    with torch.no_grad():
        for name, x in ours.items():
            x.copy_(state[name])


def rename(name: str, rules: list[Rule]) -> str:
    """Apply the rules to `name`, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
