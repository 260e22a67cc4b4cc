"""The dense pose branch (DensePose, arXiv:1802.00434): for each pixel of a person the part of the body, U and V.

Layers, loss and settings are those of Detectron2's project DensePose, configuration densepose_rcnn_R_50_FPN_s1x_legacy,
which the paper's "s1x" refers to. U and V are coordinates of 0 to 1 on the chart of a part.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, grid_sample, interpolate, smooth_l1_loss
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads

from moco.transfer.models.boxes import Detections, near
from moco.transfer.models.head_branch import Branch
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import SampledRegions, Target
from moco.transfer.models.settings import Settings

BODY_PARTS = 24  # and the background, which is part 0
SURFACE_SIDE = 256  # points and the mask are given on a person's box, scaled to a square with this side [pixels]
FOREGROUND_IOU = 0.7  # of a RoI and its person; RoIs with less are not used in the loss


class SurfacePoints(NamedTuple):
    """The annotated points of one person, and its mask by 14 coarse parts (COCO's dp_* fields)."""

    x: Float[Tensor, "P"]  # 0 ... 255 within the person's box
    y: Float[Tensor, "P"]
    part: Int[Tensor, "P"]  # 1 ... 24
    u: Float[Tensor, "P"]
    v: Float[Tensor, "P"]
    mask: UInt8[Tensor, "256 256"]  # 0 ... 14


class Charts(NamedTuple):
    """The outputs of the branch for each of R boxes, on a grid over the box."""

    coarse: Float[Tensor, "R C M M"]  # logits: background and 14 coarse parts, or background and person
    fine: Float[Tensor, "R 25 M M"]  # logits of the parts
    u: Float[Tensor, "R 25 M M"]
    v: Float[Tensor, "R 25 M M"]


class Weights(NamedTuple):
    """Weights of the losses: of U and V, of parts, of coarse parts."""

    points: float = 0.1
    part: float = 0.3
    coarse: float = 2.0


class AnnotatedRoIs(NamedTuple):
    """The RoIs of annotated persons."""

    rows: Int[Tensor, "n"]  # of these RoIs among all
    roi: Float[Tensor, "n 4"]
    person: Float[Tensor, "n 4"]  # its person's box
    annotations: list[SurfacePoints]


class DensePoseBranch(Branch):
    """Eight 3x3 convolutions, and four deconvolutions, whose outputs are upsampled by 2.

    Args:
        pool: in that configuration 14 x 14, not aligned, with 2 x 2 samples in each cell.
    """

    target = "densepose"

    def __init__(
        self, channels: int, settings: Settings, *, pool: Pool, coarse: int = 15, weights: Weights | None = None
    ) -> None:
        super().__init__()
        self.pool, self.weights, width = pool, weights or Weights(), settings.keypoint_channels
        self.head = KeypointRCNNHeads(channels, (width,) * 8)
        outputs = {"coarse": coarse, "fine": BODY_PARTS + 1, "u": BODY_PARTS + 1, "v": BODY_PARTS + 1}
        self.predictor = nn.ModuleDict({name: _deconvolution(width, count) for name, count in outputs.items()})

    def forward(self, x: Float[Tensor, "R D m m"]) -> Charts:
        """Charts of four times the size."""
        x = self.head(x)
        enlarged = (interpolate(layer(x).float(), scale_factor=2, mode="bilinear") for layer in self.predictor.values())
        return Charts(*enlarged)

    def losses(
        self, x: Float[Tensor, "R D m m"], samples: list[SampledRegions], targets: list[Target]
    ) -> dict[str, Tensor]:
        """See `chart_losses`. Only RoIs that overlap their person by more than 0.7 are used."""
        rois = find_annotated_rois(samples, targets)
        rows = torch.arange(len(rois.rows), device=x.device)
        return chart_losses(self(x[rois.rows]), rois._replace(rows=rows), self.weights)

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Add "coarse", "fine", "u" and "v", as in Charts; `surface` computes pixels from them."""
        counts = [len(each["boxes"]) for each in detections]
        for name, chart in self(x)._asdict().items():
            for each, part in zip(detections, chart.split(counts), strict=True):
                each[name] = part


def _deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def find_annotated_rois(
    samples: list[SampledRegions], targets: list[Target], iou: float = FOREGROUND_IOU
) -> AnnotatedRoIs:
    """The RoIs that overlap a person with points by more than `iou`, in all images."""
    roi = torch.cat([sample.boxes for sample in samples])
    person = torch.cat([near(sample, target["boxes"]) for sample, target in zip(samples, targets, strict=True)])
    points = list[SurfacePoints | None]()
    for sample, target in zip(samples, targets, strict=True):
        points += [target["densepose"][index] for index in sample.matched.tolist()]
    close = (overlaps(roi, person) > iou).tolist()
    rows = [row for row, one in enumerate(points) if one is not None and close[row]]
    index = torch.tensor(rows, dtype=torch.int64, device=roi.device)
    return AnnotatedRoIs(index, roi[index], person[index], [one for row in rows if (one := points[row]) is not None])


def overlaps(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """The intersection over the union of each pair of boxes."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    return inner / ((a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - inner)


def chart_losses(charts: Charts, rois: AnnotatedRoIs, weights: Weights) -> dict[str, Tensor]:
    """The losses of a batch, by name; 0 without annotated points. Only points inside of their RoI are used.

    U and V: the sum of smooth L1 over the points, on the charts of their parts. Parts (I): mean cross entropy over the
    points. Coarse parts (S): mean cross entropy over the grids of the RoIs.
    """
    losses = {name: chart.sum() * 0 for name, chart in zip(("S", "I", "U", "V"), charts, strict=True)}
    if len(rois.rows):
        wanted = coarse_targets(rois, charts.coarse.shape[1], charts.coarse.shape[-1])
        losses["S"] = weights.coarse * cross_entropy(charts.coarse[rois.rows], wanted)
        points = locate(rois, charts.fine.shape[-1])
        if len(points.part):
            losses["I"] = weights.part * cross_entropy(points.read(charts.fine), points.part)
            for name, chart, value in (("U", charts.u, points.u), ("V", charts.v, points.v)):
                read = points.read(chart).gather(1, points.part[:, None])[:, 0]
                losses[name] = weights.points * smooth_l1_loss(read, value, reduction="sum")
    return {f"loss_densepose_{name}": loss for name, loss in losses.items()}


class Points(NamedTuple):
    """The points inside of all RoIs, with their positions on the RoI's grid."""

    roi: Int[Tensor, "P"]
    x: Float[Tensor, "P"]  # [cells], from the first cell
    y: Float[Tensor, "P"]
    part: Int[Tensor, "P"]
    u: Float[Tensor, "P"]
    v: Float[Tensor, "P"]

    def read(self, chart: Float[Tensor, "R C M M"]) -> Float[Tensor, "P C"]:
        """The values of a chart at the points, by bilinear interpolation."""
        last = chart.shape[-1] - 1
        x, y = self.x.floor().long().clamp(0, last), self.y.floor().long().clamp(0, last)
        right, below = (x + 1).clamp(max=last), (y + 1).clamp(max=last)
        dx, dy = (self.x - x)[:, None], (self.y - y)[:, None]
        rows = chart.permute(0, 2, 3, 1)
        upper = rows[self.roi, y, x] * (1 - dx) + rows[self.roi, y, right] * dx
        lower = rows[self.roi, below, x] * (1 - dx) + rows[self.roi, below, right] * dx
        return upper * (1 - dy) + lower * dy


def locate(rois: AnnotatedRoIs, side: int) -> Points:
    """The points within their RoIs, on a grid of `side` x `side` cells. Cell 0 is at the RoI's left and upper edge."""
    parts = list[Points]()
    for index, roi, person, points in zip(*rois, strict=True):
        extent, size = person[2:] - person[:2], roi[2:] - roi[:2]
        x = person[0] + points.x.to(roi) * extent[0] / SURFACE_SIDE - roi[0]
        y = person[1] + points.y.to(roi) * extent[1] / SURFACE_SIDE - roi[1]
        inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
        x, y = x * side / size[0], y * side / size[1]
        values = (points.part.to(roi.device), points.u.to(roi), points.v.to(roi))
        parts.append(Points(index.expand(len(x))[inside], x[inside], y[inside], *(value[inside] for value in values)))
    return Points(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def coarse_targets(rois: AnnotatedRoIs, channels: int, side: int) -> Int[Tensor, "n M M"]:
    """The coarse parts of each RoI's person on the RoI's grid, 0 outside of the person; 0 or 1 for two channels."""
    grids = list[Tensor]()
    across = torch.arange(side, device=rois.roi.device) / side
    for roi, person in zip(rois.roi, rois.person, strict=True):
        extent = person[2:] - person[:2]
        start, end = 2 * (roi[:2] - person[:2]) / extent - 1, 2 * (roi[2:] - person[:2]) / extent - 1
        x, y = across * (end[0] - start[0]) + start[0], across * (end[1] - start[1]) + start[1]
        grids.append(torch.stack(torch.broadcast_tensors(x[None], y[:, None]), dim=-1))
    masks = torch.stack([points.mask for points in rois.annotations])[:, None].to(rois.roi)
    read = grid_sample(masks, torch.stack(grids), mode="nearest", align_corners=True)[:, 0].long()
    return (read > 0).long() if channels == 2 else read


def surface(detections: Detections, index: int) -> tuple[UInt8[Tensor, "h w"], Float[Tensor, "2 h w"]]:
    """The part (0: none) and U, V of each pixel of one detection's box, at its size in whole pixels."""
    box = detections["boxes"][index]
    size = [max(int(side), 1) for side in (box[3] - box[1], box[2] - box[0])]
    charts = Charts(*(detections[name][index : index + 1] for name in Charts._fields))
    coarse, fine, u, v = (interpolate(chart, size, mode="bilinear") for chart in charts)
    part = fine.argmax(dim=1) * (coarse.argmax(dim=1) > 0)
    uv = torch.cat([chart.gather(1, part[:, None])[:, 0] for chart in (u, v)]).clamp(0, 1)
    return part[0].to(torch.uint8), torch.where(part > 0, uv, 0)
