"""What no recorded file covers: initial weights, counts of proposals, sizes of layers, the RPN's divisor, resizing."""

import numpy as np
import pytest
import torch
from PIL import Image

from moco.encoders.resnet import NETS, ResNet
from moco.recipe import RecipeError
from moco.transfer.models.build import build_detector
from moco.transfer.models.proposals import Outputs, ProposalNetwork
from moco.transfer.models.resize import compute_resized_shape, resize
from moco.transfer.models.settings import ProposalCounts, Settings, paper_settings

SMALL = 0.125


def network(name: str = "resnet50") -> ResNet:
    return ResNet(NETS[name], width=SMALL)


@pytest.mark.parametrize(
    ("task", "arch", "before", "after"),
    [
        ("detect", "c4", (12000, 6000), (2000, 1000)),
        ("detect", "dc5", (12000, 6000), (2000, 1000)),
        ("instance", "fpn", (2000, 1000), (1000, 1000)),
        ("keypoints", "fpn", (2000, 1000), (1500, 1000)),
    ],
)
def test_counts_of_proposals_are_those_of_detectron2s_configurations(task, arch, before, after):
    assert paper_settings(task, arch, 5).counts == ProposalCounts(before, after)


def test_lvis_keeps_300_detections_above_1e_4():
    settings = paper_settings("lvis", "fpn", 1230)
    assert (settings.score_threshold, settings.max_detections) == (1e-4, 300)


def test_new_layers_start_as_detectron2s():
    torch.manual_seed(0)
    heads = build_detector(network(), "instance", "fpn", 20).heads
    stds = {
        "box_predictor.cls_score": 0.01,
        "box_predictor.bbox_pred": 0.001,
        "branches.mask.predictor.mask_fcn_logits": 0.001,
    }
    for name, std in stds.items():
        assert heads.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.05)
    for name in ("box_head.fc6", "box_head.fc7"):  # uniform within sqrt(3 / inputs)
        weight = heads.get_parameter(f"{name}.weight")
        assert weight.abs().max().item() == pytest.approx((3 / weight.shape[1]) ** 0.5, rel=1e-3)
    for name, bias in heads.named_parameters():
        if name.endswith("bias") and ".0.1." not in name:
            assert not bias.any(), name


def test_the_rpn_and_the_pyramid_start_as_detectron2s():
    torch.manual_seed(0)
    detector = build_detector(network(), "detect", "fpn", 20)
    for name in ("conv.0.0", "cls_logits", "bbox_pred"):
        assert detector.rpn.head.get_parameter(f"{name}.weight").std().item() == pytest.approx(0.01, rel=0.1)
    for block in detector.backbone.fpn.inner_blocks:
        weight = block[0].weight
        assert weight.abs().max().item() == pytest.approx((3 / weight[0].numel()) ** 0.5, rel=1e-2)


def test_dilated_c5_ends_in_a_3x3_convolution_to_512_with_bn():
    detector = build_detector(network(), "detect", "dc5", 20).eval()
    conv, norm = detector.backbone.last
    assert (tuple(conv.weight.shape), conv.bias) == ((512, 256, 3, 3), None)
    assert isinstance(norm, torch.nn.BatchNorm2d)
    (found,) = detector.backbone(torch.rand(1, 3, 100, 84))
    assert found.shape == (1, 512, 7, 6)  # stride 16, not padded to it
    assert detector.heads.box_head.fc6.in_features == 512 * 7 * 7


@pytest.mark.parametrize(
    ("task", "arch"),
    [(task, arch) for task in ("detect", "instance") for arch in ("c4", "dc5", "fpn")] + [("keypoints", "fpn")],
)
def test_every_parameter_of_every_architecture_is_trained(task, arch):
    torch.manual_seed(0)
    settings = paper_settings(task, arch, 2).but(
        fpn_channels=16,
        fc_channels=16,
        mask_channels=16,
        keypoint_channels=16,
        counts=ProposalCounts((50, 50), (20, 20)),
    )
    detector = build_detector(network(), task, arch, 2, settings=settings).train()
    images = [
        torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8),
        torch.randint(0, 256, (3, 70, 60), dtype=torch.uint8),
    ]
    target = {
        "boxes": torch.tensor([[5.0, 5, 40, 50]]),
        "labels": torch.tensor([1]),
        "masks": [[np.array([5.0, 5, 40, 5, 40, 50])]],
        "keypoints": torch.tensor([[[20.0, 20, 2]] * 17]),
    }
    losses = detector(images, [target, target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert [name for name, x in detector.named_parameters() if x.grad is None] == []


def test_an_image_without_objects_trains_the_rest():
    torch.manual_seed(0)
    settings = paper_settings("instance", "fpn", 2).but(counts=ProposalCounts((50, 50), (20, 20)), head_norm=True)
    detector = build_detector(network("resnet10"), "instance", "fpn", 2, settings=settings).train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": []}
    losses = detector([torch.zeros(3, 64, 64, dtype=torch.uint8)], [empty])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["loss_mask"], losses["loss_rpn_loc"], losses["loss_box_reg"]) == (0, 0, 0)
    assert [name for name, x in detector.named_parameters() if x.grad is None] == []


def test_the_rpns_losses_are_divided_by_256_an_image_however_few_anchors_there_are():
    rpn = ProposalNetwork(4, (16,), Settings(1, anchor_sizes=((16,),), anchor_ratios=(1.0,)))
    anchors = torch.tensor([[0.0, 0, 16, 16], [16, 0, 32, 16], [100, 100, 116, 116]])
    logits, deltas = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[[0.25, 0, 0, -0.5], [0, 0, 0, 0], [1, 1, 1, 1]]])
    target = {"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([0])}
    losses = rpn.losses(Outputs([anchors], [logits], [deltas]), [target])
    cross_entropies = torch.log1p(torch.exp(torch.tensor([-0.5, -1.0, 2.0])))
    assert losses["loss_rpn_cls"].item() == pytest.approx(cross_entropies.sum().item() / 256)
    assert losses["loss_rpn_loc"].item() == pytest.approx(0.75 / 256)


def test_an_architecture_that_does_not_fit_the_network_is_refused():
    with pytest.raises(RecipeError, match="--arch c4 needs a ResNet of ours with bottleneck blocks"):
        build_detector(network("resnet18"), "detect", "c4", 2)
    with pytest.raises(RecipeError, match="keypoints needs --arch fpn"):
        build_detector(network(), "keypoints", "c4", 2)
    for arch in ("c4", "fpn"):
        with pytest.raises(RecipeError, match=r"was built with encoder\.dilate_last=true"):
            build_detector(ResNet(NETS["resnet50"], width=SMALL, dilate_last=True), "detect", arch, 2)
    with pytest.raises(RecipeError, match="got a Linear"):
        build_detector(torch.nn.Linear(2, 2), "detect", "fpn", 2)


@pytest.mark.parametrize(("stem", "strides"), [("3x3", (1, 2, 4, 8, 16)), ("3x3/2", (2, 4, 8, 16, 32))])
def test_an_encoder_for_small_images_has_smaller_strides_and_anchors(stem: str, strides: tuple[int, ...]):
    detector = build_detector(ResNet(NETS["resnet10"], width=SMALL, stem=stem), "detect", "fpn", 2)
    assert detector.backbone.strides == detector.rpn.strides == strides
    assert detector.settings.anchor_sizes == tuple((8.0 * stride,) for stride in strides)
    maps = detector.backbone(torch.rand(1, 3, 32, 64))
    assert [tuple(found.shape[2:]) for found in maps] == [(-(-32 // stride), -(-64 // stride)) for stride in strides]


def test_a_dilated_encoder_is_dilated_once_more_in_its_first_block():
    encoder = ResNet(NETS["resnet50"], width=SMALL, dilate_last=True)
    detector = build_detector(encoder, "detect", "dc5", 2)
    assert [block.conv2.dilation for block in encoder.layer4] == [(2, 2)] * 3
    assert detector.backbone.strides == (16,)


def test_the_shorter_side_is_resized_and_the_longer_kept_within_the_limit():
    # 1333 x 800 is Detectron2's default: 480 x 640 grows to 800 x 1067, 400 x 1000 to 533 x 1333
    assert compute_resized_shape(480, 640, 800, 1333) == (800, 1067)
    assert compute_resized_shape(640, 480, 800, 1333) == (1067, 800)
    assert compute_resized_shape(400, 1000, 800, 1333) == (533, 1333)
    assert compute_resized_shape(1000, 400, 800, 1333) == (1333, 533)


def test_images_are_resized_as_pillow_does_bilinearly_and_their_objects_with_them():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    target = {
        "boxes": torch.tensor([[9.0, 6, 90, 60]]),
        "labels": torch.tensor([0]),
        "masks": [[np.array([9.0, 6, 90, 6, 90, 60])]],
        "keypoints": torch.tensor([[[9.0, 6, 2], [0, 0, 0]]]),
    }
    image, found = resize(torch.from_numpy(pixels).permute(2, 0, 1), target, shorter=30, longest=1333)
    wanted = Image.fromarray(pixels).resize((45, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(wanted))
    assert found["boxes"].tolist() == [[4.5, 3, 45, 30]]
    assert found["masks"][0][0].tolist() == [4.5, 3, 45, 3, 45, 30]
    assert found["keypoints"].tolist() == [[[4.5, 3, 2], [0, 0, 0]]]
    assert target["boxes"].tolist() == [[9, 6, 90, 60]]


def test_bitmap_masks_are_resized_by_the_nearest_pixel():
    mask = torch.zeros(1, 60, 90, dtype=torch.bool)
    mask[:, 20:40, 30:60] = True
    target = {"boxes": torch.tensor([[30.0, 20, 60, 40]]), "labels": torch.tensor([0]), "masks": mask}
    _, found = resize(torch.zeros(3, 60, 90, dtype=torch.uint8), target, shorter=30, longest=1333)
    assert torch.equal(found["masks"], mask[:, ::2, ::2])
