"""Dense pose: the recorded losses, gradients and head of Detectron2, and pixels of the charts."""

import pytest
import torch
from torch.nn.functional import interpolate

from moco.encoders.resnet import NETS, ResNet
from moco.transfer.models.build import build_detector
from moco.transfer.models.densepose import (
    Annotation,
    Charts,
    DensePoseBranch,
    Found,
    Weights,
    annotated,
    chart_losses,
    surface,
)  # fmt: skip
from moco.transfer.models.detectron2_names import COMMON, renamed
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import Sample
from moco.transfer.models.settings import Counts, Settings, paper_settings
from tests.transfer.recorded import Recorded, recorded

WEIGHTS = {"default": Weights(0.01, 1.0, 5.0), "s1x_legacy": Weights()}


def annotation(file: Recorded, image: int, person: int) -> Annotation | None:
    prefix = f"image/{image}/person/{person}/"
    if f"{prefix}x" not in file.arrays:
        return None
    return Annotation(*(file[f"{prefix}{name}"] for name in ("x", "y", "i", "u", "v", "segm")))


def persons(file: Recorded) -> tuple[list[Sample], list[dict]]:
    samples, targets = list[Sample](), list[dict]()
    for image in (0, 1):
        matched, boxes = file[f"image/{image}/matched_gt"], file[f"image/{image}/proposals"]
        samples.append(Sample(boxes, torch.zeros_like(matched), matched))
        targets.append(
            {"boxes": file[f"image/{image}/gt_boxes"], "densepose": [annotation(file, image, j) for j in (0, 1)]}
        )
    return samples, targets


def charts(file: Recorded, coarse: int) -> Charts:
    names = (f"coarse_segm_{coarse}", "fine_segm", "u", "v")
    return Charts(*(file[f"pred/{name}"].clone().requires_grad_() for name in names))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("coarse", [15, 2])
def test_losses_and_gradients_are_detectron2s(coarse: int, weights: str):
    file = recorded("densepose_loss")
    found, given = annotated(*persons(file), iou=-1), charts(file, coarse)
    losses = chart_losses(given, found, WEIGHTS[weights])
    assert len(losses) == 4
    for name, loss in losses.items():
        wanted = file[f"loss_{coarse}/{weights}/{name}"].item()
        assert loss.item() == pytest.approx(wanted, abs=1e-5)
    sum(losses.values()).backward()
    for name, chart in zip(("coarse_segm", "fine_segm", "u", "v"), given, strict=True):
        for kind in ("grad", "grad_norm"):
            key = f"{kind}_{coarse}/{weights}/{name}"
            if key in file.arrays:
                seen = chart.grad if kind == "grad" else chart.grad.double().norm()
                assert (
                    (seen - file[key]).abs().max() < 1e-7 if kind == "grad" else seen == pytest.approx(file[key].item())
                )


def test_without_annotated_persons_losses_and_gradients_are_zero():
    file = recorded("densepose_loss")
    samples, targets = persons(file)
    targets = [target | {"densepose": [None, None]} for target in targets]
    given = charts(file, 15)
    losses = chart_losses(given, annotated(samples, targets), Weights())
    assert [loss.item() for loss in losses.values()] == file["no_annotation_15"].tolist()
    sum(losses.values()).backward()
    assert not any(chart.grad.any() for chart in given)


def test_the_head_is_detectron2s():
    file = recorded("densepose_loss")
    settings = Settings(1, keypoint_channels=16)
    branch = DensePoseBranch(12, settings, pool=Pool(5, (4,)))
    with torch.no_grad():
        for name, x in branch.state_dict().items():
            x.copy_(file[f"head/weight/{renamed(f'heads.branches.densepose.{name}', COMMON)}"])
        assert (branch.head(file["head/input"]) - file["head/output/features"]).abs().max() < 1e-5
        found = branch(file["head/input"])
    for name, chart in zip(("coarse_segm", "fine_segm", "u", "v"), found, strict=True):
        assert (chart - file[f"head/output/{name}"]).abs().max() < 1e-5


PLANTED = {
    "points of 0 to 255": lambda found, given: (moved(found, 256 / 255), given),
    "the RoI in place of the person": lambda found, given: (found._replace(person=found.roi), given),
    "the person in place of the RoI": lambda found, given: (found._replace(roi=found.person), given),
    "the coarse grid to the far edges": lambda found, given: (found._replace(roi=stretched(found.roi)), given),
    "U and V swapped": lambda found, given: (found, given._replace(u=given.v, v=given.u)),
}


def stretched(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :2], boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) * 24 / 23], dim=1)


def moved(found: Found, scale: float) -> Found:
    return found._replace(annotations=[a._replace(x=a.x * scale, y=a.y * scale) for a in found.annotations])


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_falls_outside_the_tolerances(mistake: str):
    file = recorded("densepose_loss")
    found, given = PLANTED[mistake](annotated(*persons(file), iou=-1), charts(file, 15))
    losses = chart_losses(given, found, Weights())
    assert any(abs(loss.item() - file[f"loss_15/s1x_legacy/{name}"].item()) > 1e-5 for name, loss in losses.items())


def test_rois_that_overlap_their_person_by_0_7_or_less_are_left_out():
    points = Annotation(
        *(torch.zeros(1) for _ in range(2)), torch.ones(1).long(), *(torch.zeros(1),) * 2, torch.zeros(256, 256).byte()
    )
    target = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "densepose": [points]}
    boxes = torch.tensor([[0.0, 0, 100, 70], [0, 0, 100, 71], [0, 0, 100, 100]])
    found = annotated([Sample(boxes, torch.zeros(3).long(), torch.zeros(3).long())], [target])
    assert found.rows.tolist() == [1, 2]


def test_a_detector_with_dense_pose_trains_all_its_parameters_and_finds_charts():
    torch.manual_seed(0)
    settings = paper_settings("densepose", "fpn", 1).but(
        fpn_channels=16, fc_channels=16, keypoint_channels=16, counts=Counts((50, 50), (20, 20)), score_threshold=0.0
    )
    detector = build_detector(ResNet(NETS["resnet10"], width=0.125), "densepose", "fpn", 1, settings=settings).train()
    branch = detector.heads.branches["densepose"]
    assert branch.pool == Pool(14, (4, 8, 16, 32), aligned=False, samples=2)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    points = Annotation(
        torch.rand(9) * 255, torch.rand(9) * 255, torch.arange(1, 10), torch.rand(9), torch.rand(9),
        torch.randint(0, 15, (256, 256), dtype=torch.uint8),
    )  # fmt: skip
    target = {"boxes": torch.tensor([[4.0, 4, 60, 60]]), "labels": torch.tensor([0]), "densepose": [points]}
    losses = detector([image], [target])
    sum(losses.values()).backward()
    assert [name for name, x in detector.named_parameters() if x.grad is None] == []
    (found,) = detector.eval()([image])
    assert found["fine"].shape[1:] == (25, 56, 56)


def test_pixels_of_a_box_have_the_likeliest_part_and_its_u_and_v():
    torch.manual_seed(0)
    found = {"boxes": torch.tensor([[3.2, 4.0, 13.9, 11.5]])}
    found |= {name: torch.rand(1, 2 if name == "coarse" else 25, 6, 6) for name in Charts._fields}
    part, uv = surface(found, 0)
    assert (part.shape, uv.shape) == ((7, 10), (2, 7, 10))
    whole = {name: interpolate(found[name], (7, 10), mode="bilinear")[0] for name in Charts._fields}
    for row in range(7):
        for column in range(10):
            likeliest = int(whole["fine"][:, row, column].argmax())
            if whole["coarse"][1, row, column] <= whole["coarse"][0, row, column]:
                likeliest = 0
            assert part[row, column] == likeliest
            wanted = [float(whole[name][likeliest, row, column]) if likeliest else 0.0 for name in "uv"]
            assert uv[:, row, column].tolist() == pytest.approx(wanted)
