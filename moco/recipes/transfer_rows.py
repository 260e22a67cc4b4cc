"""The rows of the paper's tables 2 to 6 that `moco transfer` can reproduce, each with its published results.

A row is given by task, arch and schedule of `moco transfer`. Their recipe in moco/transfer has the settings, with the
source of each number. The results are those printed in MoCo v1 (arXiv:1911.05722), with pre-training on ImageNet-1M.
"""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from moco.text import TEXT_WIDTH

VOC = ("AP50", "AP", "AP75")
COCO = ("AP", "AP50", "AP75", "AP mask", "AP50 mask", "AP75 mask")
ONE = ("AP", "AP50", "AP75")
HEADS_NOTE = "which new layers have BN; here the FPN, or the layer after C4's head"
SHARES = "when lr falls within 9k iterations; here at the same shares of the run as within 24k"
Scores = tuple[float, ...]


@dataclass(frozen=True)
class TransferRow:
    """One row of a table: how to reproduce it, and the paper's results. None: not in the paper."""

    name: str
    table: str
    task: str
    arch: str
    schedule: str
    data: str
    measures: tuple[str, ...]
    random: Scores | None
    supervised: Scores
    moco: Scores
    open_points: tuple[str, ...] = ()
    options: str = ""  # further options of `moco transfer` that the row needs

    def command(self) -> str:
        arch = f" --arch {self.arch}" if self.arch else ""
        return f"moco transfer {self.task}{arch} --schedule {self.schedule}{self.options}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"command": self.command()}

    def __str__(self) -> str:
        width = max(len("supervised"), *map(len, self.measures)) + 2
        lines = [f"{self.name}: MoCo v1, {self.table}; {self.data}", "", f"  {self.command()}", ""]
        lines.append("published by the authors, not measured here [%]")
        lines.append("".join(f"{one:>{width}}" for one in ("", *self.measures)))
        for name, scores in (("random", self.random), ("supervised", self.supervised), ("MoCo", self.moco)):
            if scores is not None:
                lines.append(f"{name:>{width}}" + "".join(f"{one:>{width}.1f}" for one in scores))
        if self.open_points:
            lines += ["", "what the paper does not say"]
            lines += [
                textwrap.fill(one, TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ") for one in self.open_points
            ]
        return "\n".join(lines)


@dataclass(frozen=True)
class TransferRows:
    """All rows."""

    rows: tuple[TransferRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"rows": [one.to_dict() for one in self.rows]}

    def __str__(self) -> str:
        lines = ["Rows of tables 2 to 6 of MoCo v1. moco explain NAME shows the results of one", ""]
        return "\n".join([*lines, *(f"{one.name:<24}{one.table:<12}{one.command()}" for one in self.rows)])


def _coco(
    name: str, table: str, arch: str, schedule: str, *, random: Scores, supervised: Scores, moco: Scores
) -> TransferRow:
    """A row of Table 5: boxes and masks of COCO."""
    data = "COCO train2017, val2017"
    return TransferRow(name, table, "instance", arch, schedule, data, COCO, random, supervised, moco, (HEADS_NOTE,))


TRANSFER_ROWS = (
    TransferRow("voc-c5-24k", "Table 2a", "detect", "dc5", "24k", "VOC trainval07+12, test2007", VOC,
                (64.4, 37.9, 38.6), (81.4, 54.0, 59.1), (81.1, 54.6, 59.9),
                ("whether a ReLU follows the 3x3 convolution; here there is none",)),
    TransferRow("voc-c4-24k", "Table 2b", "detect", "c4", "24k", "VOC trainval07+12, test2007", VOC,
                (60.2, 33.8, 33.1), (81.3, 53.5, 58.8), (81.5, 55.9, 62.6), (HEADS_NOTE,)),
    TransferRow("voc07-c4-9k", "Table 4", "detect", "c4", "9k", "VOC trainval2007, test2007", VOC,
                None, (74.4, 42.4, 42.7), (74.9, 46.6, 50.1), (SHARES, HEADS_NOTE)),
    _coco("coco-fpn-1x", "Table 5a", "fpn", "1x",
          random=(31.0, 49.5, 33.2, 28.5, 46.8, 30.4),
          supervised=(38.9, 59.6, 42.7, 35.4, 56.5, 38.1),
          moco=(38.5, 58.9, 42.0, 35.1, 55.9, 37.7)),
    _coco("coco-fpn-2x", "Table 5b", "fpn", "2x",
          random=(36.7, 56.7, 40.0, 33.7, 53.8, 35.9),
          supervised=(40.6, 61.3, 44.4, 36.8, 58.1, 39.5),
          moco=(40.8, 61.6, 44.7, 36.9, 58.4, 39.7)),
    _coco("coco-c4-1x", "Table 5c", "c4", "1x",
          random=(26.4, 44.0, 27.8, 29.3, 46.9, 30.8),
          supervised=(38.2, 58.2, 41.2, 33.3, 54.7, 35.2),
          moco=(38.5, 58.3, 41.6, 33.6, 54.8, 35.6)),
    _coco("coco-c4-2x", "Table 5d", "c4", "2x",
          random=(35.6, 54.6, 38.2, 31.4, 51.5, 33.5),
          supervised=(40.0, 59.9, 43.1, 34.7, 56.5, 36.9),
          moco=(40.7, 60.5, 44.1, 35.4, 57.3, 37.6)),
    TransferRow("coco-keypoints-2x", "Table 6", "keypoints", "fpn", "2x", "COCO train2017, val2017", ONE,
                (65.9, 86.5, 71.7), (65.8, 86.9, 71.9), (66.8, 87.4, 72.5), (HEADS_NOTE,)),
    TransferRow("densepose-s1x", "Table 6", "densepose", "fpn", "s1x", "DensePose-COCO", ONE,
                (39.4, 78.5, 35.1), (48.3, 85.6, 50.6), (50.1, 86.8, 53.9),
                ("which splits: the paper names COCO's of 2017, Detectron2's configuration those of 2014", HEADS_NOTE),
                " --body-surface FOLDER"),
    TransferRow("lvis-1x", "Table 6", "lvis", "fpn", "1x", "LVIS v0.5 train, val", ONE,
                (22.5, 34.8, 23.8), (24.4, 37.8, 25.8), (24.1, 37.4, 25.5), (HEADS_NOTE,), " --bn supervised=frozen"),
    TransferRow("cityscapes-24k", "Table 6", "cityscapes", "fpn", "24k", "Cityscapes train_fine, val", ("AP", "AP50"),
                (25.4, 51.1), (32.9, 59.6), (32.3, 59.3),
                ("the appendix does not describe this row: architecture and schedule are those of Detectron2's "
                 "configuration, without its weights trained on COCO",)),
    TransferRow("cityscapes-semantic-90k", "Table 6", "segment", "", "90k", "Cityscapes train_fine, val", ("mIoU",),
                (65.3,), (74.6,), (75.3,)),
    TransferRow("voc-semantic-30k", "Table 6", "segment", "", "30k", "VOC train_aug2012, val2012", ("mIoU",),
                (39.5,), (74.4,), (72.5,)),
)  # fmt: skip


def transfer_row(name: str) -> TransferRow | TransferRows | None:
    """The row of this name; all rows for "transfer"; None for another name."""
    if name == "transfer":
        return TransferRows(TRANSFER_ROWS)
    return next((one for one in TRANSFER_ROWS if one.name == name), None)
