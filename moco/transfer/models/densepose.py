"""The dense pose branch (DensePose, arXiv:1802.00434): for each pixel of a person a part of the body, and U and V.

Layers, loss and settings are those of Detectron2's project DensePose, configuration densepose_rcnn_R_50_FPN_s1x_legacy,
which is the one of the paper's time (its "s1x"). U and V are coordinates of 0 to 1 on the chart of a part.
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
from moco.transfer.models.sampling import Sample, Target
from moco.transfer.models.settings import Settings

PARTS = 24  # and the background, which is part 0
SIDE = 256  # of the square that a person's box is, in which points are given and the mask has its pixels
FOREGROUND_IOU = 0.7  # of a RoI and its person; below, the RoI takes no part in the loss


class Annotation(NamedTuple):
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


class Found(NamedTuple):
    """RoIs of annotated persons, one row each."""

    rows: Int[Tensor, "n"]  # of the RoI
    roi: Float[Tensor, "n 4"]
    person: Float[Tensor, "n 4"]  # its person's box
    annotations: list[Annotation]


class DensePoseBranch(Branch):
    """Eight 3x3 convolutions, and four deconvolutions whose output is enlarged twofold.

    Args:
        pool: 14 x 14, not aligned and with 2 x 2 samples a cell in that configuration.
    """

    target = "densepose"

    def __init__(
        self, channels: int, settings: Settings, *, pool: Pool, coarse: int = 15, weights: Weights | None = None
    ) -> None:
        super().__init__()
        self.pool, self.weights, width = pool, weights or Weights(), settings.keypoint_channels
        self.head = KeypointRCNNHeads(channels, (width,) * 8)
        outputs = {"coarse": coarse, "fine": PARTS + 1, "u": PARTS + 1, "v": PARTS + 1}
        self.predictor = nn.ModuleDict({name: _deconvolution(width, count) for name, count in outputs.items()})

    def forward(self, x: Float[Tensor, "R D m m"]) -> Charts:
        """Charts of four times the size."""
        x = self.head(x)
        enlarged = (interpolate(layer(x).float(), scale_factor=2, mode="bilinear") for layer in self.predictor.values())
        return Charts(*enlarged)

    def losses(self, x: Float[Tensor, "R D m m"], samples: list[Sample], targets: list[Target]) -> dict[str, Tensor]:
        """See `chart_losses`. The RoIs are those that overlap their person by more than 0.7."""
        found = annotated(samples, targets)
        rows = torch.arange(len(found.rows), device=x.device)
        return chart_losses(self(x[found.rows]), found._replace(rows=rows), self.weights)

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Adds "coarse", "fine", "u" and "v", as in Charts; `surface` makes pixels of them."""
        counts = [len(found["boxes"]) for found in detections]
        for name, chart in self(x)._asdict().items():
            for found, part in zip(detections, chart.split(counts), strict=True):
                found[name] = part


def _deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def annotated(samples: list[Sample], targets: list[Target], iou: float = FOREGROUND_IOU) -> Found:
    """The RoIs of all images whose persons have points, and that overlap them by more than `iou`."""
    roi = torch.cat([sample.boxes for sample in samples])
    person = torch.cat([near(sample, target["boxes"]) for sample, target in zip(samples, targets, strict=True)])
    points = list[Annotation | None]()
    for sample, target in zip(samples, targets, strict=True):
        points += [target["densepose"][index] for index in sample.matched.tolist()]
    close = (overlaps(roi, person) > iou).tolist()
    rows = [row for row, one in enumerate(points) if one is not None and close[row]]
    index = torch.tensor(rows, dtype=torch.int64, device=roi.device)
    return Found(index, roi[index], person[index], [one for row in rows if (one := points[row]) is not None])


def overlaps(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """The intersection over the union of each pair of boxes."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    return inner / ((a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - inner)


def chart_losses(charts: Charts, found: Found, weights: Weights) -> dict[str, Tensor]:
    """U and V: smooth L1 at the part of each point, summed. Parts: mean cross entropy over the points. Coarse parts:
    mean cross entropy over the grids of the RoIs.

    Only points that lie in the RoI count. Without any, these losses are 0.
    """
    losses = {name: chart.sum() * 0 for name, chart in zip(("S", "I", "U", "V"), charts, strict=True)}
    if len(found.rows):
        wanted = coarse_targets(found, charts.coarse.shape[1], charts.coarse.shape[-1])
        losses["S"] = weights.coarse * cross_entropy(charts.coarse[found.rows], wanted)
        points = locate(found, charts.fine.shape[-1])
        if len(points.part):
            losses["I"] = weights.part * cross_entropy(points.read(charts.fine), points.part)
            for name, chart, value in (("U", charts.u, points.u), ("V", charts.v, points.v)):
                read = points.read(chart).gather(1, points.part[:, None])[:, 0]
                losses[name] = weights.points * smooth_l1_loss(read, value, reduction="sum")
    return {f"loss_densepose_{name}": loss for name, loss in losses.items()}


class Points(NamedTuple):
    """The points of all RoIs that lie in them, and where on the RoI's grid."""

    roi: Int[Tensor, "P"]
    x: Float[Tensor, "P"]  # [cells], from the first cell
    y: Float[Tensor, "P"]
    part: Int[Tensor, "P"]
    u: Float[Tensor, "P"]
    v: Float[Tensor, "P"]

    def read(self, chart: Float[Tensor, "R C M M"]) -> Float[Tensor, "P C"]:
        """The values of a chart at the points, between the four cells around each."""
        last = chart.shape[-1] - 1
        x, y = self.x.floor().long().clamp(0, last), self.y.floor().long().clamp(0, last)
        right, below = (x + 1).clamp(max=last), (y + 1).clamp(max=last)
        dx, dy = (self.x - x)[:, None], (self.y - y)[:, None]
        rows = chart.permute(0, 2, 3, 1)
        upper = rows[self.roi, y, x] * (1 - dx) + rows[self.roi, y, right] * dx
        lower = rows[self.roi, below, x] * (1 - dx) + rows[self.roi, below, right] * dx
        return upper * (1 - dy) + lower * dy


def locate(found: Found, side: int) -> Points:
    """The points within their RoIs, on a grid of `side` x `side` cells. Cell 0 is at the RoI's left and upper edge."""
    parts = list[Points]()
    for index, roi, person, points in zip(*found, strict=True):
        extent, size = person[2:] - person[:2], roi[2:] - roi[:2]
        x = person[0] + points.x.to(roi) * extent[0] / SIDE - roi[0]
        y = person[1] + points.y.to(roi) * extent[1] / SIDE - roi[1]
        inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
        x, y = x * side / size[0], y * side / size[1]
        values = (points.part.to(roi.device), points.u.to(roi), points.v.to(roi))
        parts.append(Points(index.expand(len(x))[inside], x[inside], y[inside], *(value[inside] for value in values)))
    return Points(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def coarse_targets(found: Found, channels: int, side: int) -> Int[Tensor, "n M M"]:
    """The mask of each RoI's person on the grid of the RoI, 0 outside of the person's box; 0 or 1 for two channels."""
    grids = list[Tensor]()
    across = torch.arange(side, device=found.roi.device) / side
    for roi, person in zip(found.roi, found.person, strict=True):
        extent = person[2:] - person[:2]
        start, end = 2 * (roi[:2] - person[:2]) / extent - 1, 2 * (roi[2:] - person[:2]) / extent - 1
        x, y = across * (end[0] - start[0]) + start[0], across * (end[1] - start[1]) + start[1]
        grids.append(torch.stack(torch.broadcast_tensors(x[None], y[:, None]), dim=-1))
    masks = torch.stack([points.mask for points in found.annotations])[:, None].to(found.roi)
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
