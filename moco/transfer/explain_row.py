"""Explain a row of the paper's tables 2 to 6: its settings, each with its source."""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

from moco.recipes.sources_of_numbers import value_text
from moco.recipes.transfer_rows import TransferRow, TransferRows, transfer_row
from moco.text import columns
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.models.settings import KIND, Settings
from moco.transfer.recipe import TransferRecipe
from moco.transfer.segmentation.recipes import segmentation_recipe
from moco.transfer.sources import source_of

OF_THE_RUN = ("name", "source", "init", "data")  # known when a run starts
CLASSES = 80  # any number: no setting that is shown depends on it


class RowSetting(NamedTuple):
    """One setting of a row's recipe."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class ExplainedRow:
    """A row with the settings of its recipe."""

    row: TransferRow
    settings: tuple[RowSetting, ...]

    def to_dict(self) -> dict[str, Any]:
        return self.row.to_dict() | {"settings": [one._asdict() for one in self.settings]}

    def __str__(self) -> str:
        sources = ["", *(one.source for one in self.settings)]
        texts = ["as above" if source == above else source for above, source in itertools.pairwise(sources)]
        rows = [(one.name, one.value, text) for one, text in zip(self.settings, texts, strict=True)]
        return f"{self.row}\n\n{columns([('setting', 'value', 'source'), *rows], widest=(26, 19))}"


def explain_row(name: str) -> ExplainedRow | TransferRows | None:
    """The row of this name; all rows for "transfer"; None for another name."""
    row = transfer_row(name)
    return ExplainedRow(row, settings_of_row(row)) if isinstance(row, TransferRow) else row


def settings_of_row(row: TransferRow) -> tuple[RowSetting, ...]:
    """The settings of a row's recipe that are known before a run, with their sources."""
    recipe = recipe_of_row(row)
    values = {
        name: value
        for name, value in recipe.fields().items()
        if name not in OF_THE_RUN and not name.startswith(("detector.", "encoder."))
    } | {"encoder.name": recipe.encoder.name}
    if values.get("repeat", 0) is None:
        del values["repeat"]  # of LVIS only
    if isinstance(recipe, DetectionRecipe):
        values |= detector_values(recipe)
    found = [
        RowSetting(name, value_text(value), source_of(name, recipe, row.schedule)) for name, value in values.items()
    ]
    return tuple(found)


def recipe_of_row(row: TransferRow) -> TransferRecipe:
    if row.task == "segment":
        return segmentation_recipe("fcn", row.schedule)
    return next(detection_recipe(task, row.arch, row.schedule) for task in KIND if task == row.task)


def detector_values(recipe: DetectionRecipe) -> dict[str, object]:
    """The widths and numbers that `detector.*` of the recipe would change."""
    settings: Settings = recipe.settings(CLASSES, 0)
    values: dict[str, object] = {
        "detector.anchor_sizes": tuple(size for sizes in settings.anchor_sizes for size in sizes),
        "detector.proposals": settings.counts.after_nms,
        "detector.rois": settings.rois_sampled,
    }
    if recipe.arch == "fpn":
        values |= {"detector.fpn_channels": settings.fpn_channels}
    if recipe.arch != "c4":
        values |= {"detector.fc_channels": settings.fc_channels}
    if KIND[recipe.task] == "masks":
        values |= {"detector.mask_channels": settings.mask_channels}
    if KIND[recipe.task] in ("keypoints", "densepose"):
        values |= {"detector.keypoint_channels": settings.keypoint_channels}
    return values
