"""Our detectors compute what Detectron2 does: outputs recorded with equal weights (tests/fixtures/detection)."""

from functools import partial

import pytest
import torch

from moco.encoders.resnet import NETS, ResNet
from moco.recipe import RecipeError
from moco.transfer.models.boxes import near
from moco.transfer.models.build import build_detector
from moco.transfer.models.dc5 import DilatedC5
from moco.transfer.models.detector import Detector
from moco.transfer.models.detectron2_names import detector_to_detectron2, detectron2_names, load_detectron2
from moco.transfer.models.heads import sample
from moco.transfer.models.keypoints import keypoint_targets
from moco.transfer.models.masks import mask_targets, paste, rasterize
from moco.transfer.models.sampling import SampledRegions
from moco.weights.detectron2 import to_detectron2
from tests.transfer.recorded import DETECTORS, Recorded, in_order, recorded

PIXELS = 0.01  # tolerances of the fixtures' README; tests/fixtures/detection/README.md says what rounding alone does


@pytest.mark.parametrize("name", DETECTORS)
def test_features_anchors_and_the_rpns_outputs_are_detectron2s(name: str):
    file = recorded(name)
    detector = file.detector().eval()
    images = {"eval": file.images(), "solo": file.images()[1:]}
    for part, given in images.items():
        batch = detector.batch(given)
        assert list(batch.shape) == file[f"{part}/batch_shape"].tolist()
        with torch.no_grad():
            features = detector.backbone(batch)
            logits, deltas = detector.rpn.head(features)
            anchors = detector.rpn.outputs(features).anchors
        for level, map_name in enumerate(DETECTORS[name][2]):
            for kind, found in (("feature", features), ("rpn_logits", logits), ("rpn_deltas", deltas)):
                seen = found[level][:1, :, ::4, ::4] if map_name in ("p2", "p3") else found[level]
                assert torch.allclose(seen, file[f"{part}/{kind}/{map_name}"], rtol=0, atol=2e-4)
            if f"{part}/anchors/{map_name}" in file.arrays:
                assert torch.equal(anchors[level], file[f"{part}/anchors/{map_name}"])


@pytest.mark.parametrize("name", DETECTORS)
def test_proposals_are_detectron2s(name: str):
    file = recorded(name)
    detector = file.detector()
    for part, mode in (("eval", False), ("train", True)):
        with torch.no_grad():
            outputs = detector.train(mode).rpn.outputs(detector.backbone(detector.batch(file.images())))
        for image, found in enumerate(detector.rpn.propose(outputs, file.own())):
            assert (found.boxes - file[f"{part}/{image}/proposals"]).abs().max() < PIXELS
            if part == "eval":
                assert (found.logits - file[f"eval/{image}/proposal_logits"]).abs().max() < 2e-4


@pytest.mark.parametrize("part", ["eval", "solo"])
@pytest.mark.parametrize("name", DETECTORS)
def test_detections_are_detectron2s(name: str, part: str):
    file = recorded(name)
    detector = file.detector().eval()
    given = slice(1, 2) if part == "solo" else slice(0, 2)
    found = detector(file.images()[given], sizes=file.sizes()[given])
    plain = detector(file.images()[given])
    for image, (ours, inside) in enumerate(zip(found, plain, strict=True)):
        assert (inside["boxes"] - file[f"{part}/{image}/net_boxes"]).abs().max() < PIXELS
        assert (ours["boxes"] - file[f"{part}/{image}/boxes"]).abs().max() < PIXELS
        assert (ours["scores"] - file[f"{part}/{image}/scores"]).abs().max() < 1e-4
        assert torch.equal(ours["labels"], file[f"{part}/{image}/classes"])
        if "masks" in ours:
            assert (ours["mask_probs"] - file[f"{part}/{image}/mask_probs"]).abs().max() < 2e-3
            assert (ours["masks"] != file[f"{part}/{image}/masks"]).sum() <= 10
        if "keypoints" in ours:
            for kind, keypoints in (("net_keypoints", inside), ("keypoints", ours)):
                off = (keypoints["keypoints"] - file[f"{part}/{image}/{kind}"]).abs()
                assert off[..., :2].max() < PIXELS
                assert off[..., 2].max() < 1e-4


@pytest.mark.parametrize("name", DETECTORS)
def test_a_training_step_is_detectron2s_in_losses_gradients_and_statistics(name: str):
    file = recorded(name)
    detector = file.detector().train()
    with in_order():
        losses = detector(file.images(), file.targets())
    assert {f"train/loss/{loss}" for loss in losses} == {key for key in file.arrays if key.startswith("train/loss/")}
    for loss, value in losses.items():
        assert value.item() == pytest.approx(file[f"train/loss/{loss}"].item(), rel=2e-5), loss
    sum(losses.values()).backward()
    state = detector.state_dict(keep_vars=True)
    ours = {theirs: state[name] for name, theirs in detectron2_names(detector).items()}
    for parameter, norm in zip(file.arrays["train/grad_names"].tolist(), file["train/grad_norms"], strict=True):
        grad = ours[parameter].grad
        assert grad is not None, parameter
        assert grad.norm().item() == pytest.approx(norm.item(), rel=0.02, abs=1e-6), parameter
    for key in (key for key in file.arrays if key.startswith("train/bn_after/")):
        assert (ours[key.removeprefix("train/bn_after/")] - file[key]).abs().max() < 2e-5, key


@pytest.mark.parametrize("name", DETECTORS)
def test_sampled_anchors_and_rois_are_detectron2s(name: str):
    file = recorded(name)
    detector = file.detector().train()
    with torch.no_grad():
        features = detector.backbone(detector.batch(file.images()))
        outputs = detector.rpn.outputs(features)
    proposals = detector.rpn.propose(outputs, file.own())
    anchors, targets = torch.cat(outputs.anchors), file.targets()
    with in_order():
        samples = sample(proposals, targets, detector.settings)
        labels = [detector.rpn.labels(anchors, target)[0] for target in targets]
    for image, (found, label) in enumerate(zip(samples, labels, strict=True)):
        assert torch.equal(label.to(torch.int8), file[f"train/{image}/rpn_labels"])
        assert torch.equal(found.classes, file[f"train/{image}/roi_classes"])
        assert (found.boxes - file[f"train/{image}/roi_boxes"]).abs().max() < PIXELS
        objects = found.classes < detector.settings.num_classes
        matched, boxes = near(found, targets[image]["boxes"]), file[f"train/{image}/roi_matched_gt_boxes"]
        assert torch.equal(matched[objects], boxes[objects])


@pytest.mark.parametrize("name", ["c4_mask", "fpn_mask"])
def test_polygons_are_rasterized_and_masks_pasted_as_by_detectron2(name: str):
    file = recorded(name)
    for j, box in enumerate(file.arrays["raster/boxes"]):
        found = rasterize(file.parts(f"raster/polygon/{j}/"), box, 28 if j % 2 else 14)
        assert (found == file.arrays[f"raster/mask/{j}"]).all()
    height, width = file["paste/size"].tolist()
    found = paste(file["paste/probs"], file["paste/boxes"], (height, width))
    assert (found != file["paste/masks"]).sum() <= 10


@pytest.mark.parametrize("name", ["c4_mask", "fpn_mask"])
def test_mask_targets_are_detectron2s(name: str):
    file = recorded(name)
    for image, target in enumerate(file.targets()):
        wanted = file[f"train/{image}/mask_targets"]
        objects = _objects(file, image, file[f"train/{image}/mask_target_boxes"])
        assert (mask_targets(objects, target, wanted.shape[-1]) != wanted).sum() <= 10


def test_keypoint_targets_are_detectron2s():
    file = recorded("fpn_keypoint")
    for image in (0, 1):
        boxes, keypoints = file[f"train/{image}/keypoint_target_boxes"], file[f"train/{image}/keypoint_target_gt"]
        every = torch.arange(len(boxes))
        position, valid = keypoint_targets(SampledRegions(boxes, every * 0, every), {"keypoints": keypoints}, 56)
        assert torch.equal(position, file[f"train/{image}/keypoint_target_index"])
        assert torch.equal(valid.long(), file[f"train/{image}/keypoint_target_valid"])


def _objects(file: Recorded, image: int, boxes: torch.Tensor) -> SampledRegions:
    """The recorded RoIs of objects, with the index of each one's object."""
    classes, matched = file[f"train/{image}/roi_classes"], file[f"train/{image}/roi_matched_gt_boxes"]
    objects = torch.where(classes < file.config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"])[0]
    index = (matched[objects, None] == file[f"gt/{image}/boxes"][None]).all(dim=2).long().argmax(dim=1)
    assert torch.equal(file[f"train/{image}/roi_boxes"][objects], boxes)
    return SampledRegions(boxes, classes[objects], index)


def test_the_dilated_last_stage_is_detectron2s():
    file = recorded("dc5_backbone")
    backbone = DilatedC5(ResNet(NETS["resnet50"], width=0.125))
    body = backbone.body
    with torch.no_grad():
        for name, x in body.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                x.copy_(file[f"weight/{to_detectron2(name)}"])
    blocks = list(body.get_submodule("layer4").children())
    assert [[*block.conv2.dilation, *block.conv2.stride] for block in blocks] == file["dilation/conv2"].tolist()
    batch = partial(Detector.batch, _plain_detector())
    with torch.no_grad():
        for part, images in (("eval", file.images()), ("solo", file.images()[1:])):
            maps = body.eval()(batch(images))
            for index, found in zip((2, 3, 4, 5), maps, strict=True):
                if f"{part}/feature/res{index}" in file.arrays:
                    assert (found - file[f"{part}/feature/res{index}"]).abs().max() < 1e-4
    last = body.train()(batch(file.images()))[-1]
    assert (last - file["train/feature/res5"]).abs().max() < 1e-4
    loss = (last.flatten() * torch.linspace(-1, 1, last.numel())).sum() / last.numel()
    assert loss.item() == pytest.approx(file["train/loss"].item(), rel=2e-5)
    loss.backward()
    parameters = {to_detectron2(name): x for name, x in body.named_parameters()}
    for name, norm in zip(file.arrays["train/grad_names"].tolist(), file["train/grad_norms"], strict=True):
        grad = parameters[name].grad
        assert grad is not None
        assert grad.norm().item() == pytest.approx(norm.item(), rel=0.02)
    assert backbone.strides == (16,)


def _plain_detector() -> Detector:
    """One that does not pad."""
    return build_detector(ResNet(NETS["resnet50"], width=0.125), "detect", "c4", 1)


def test_weights_of_another_detector_are_refused():
    file = recorded("c4_box")
    detector = file.detector()
    state = dict(detector_to_detectron2(detector))
    name = "roi_heads.box_predictor.cls_score.bias"
    with pytest.raises(RecipeError, match=r"cls_score.bias has shape \(7,\), expected \(6,\)"):
        load_detectron2(detector, state | {name: torch.zeros(7)})
    with pytest.raises(RecipeError, match=r"2 names are in one of them only \(other, roi_heads"):
        load_detectron2(detector, {"other" if key == name else key: x for key, x in state.items()})
