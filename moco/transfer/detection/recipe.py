"""The recipe for fine-tuning a detector: architecture, layers and image sizes."""

from typing import Annotated

from pydantic import Field

from moco.recipe_specs import Positive, Probability, Side, Spec
from moco.transfer.models.settings import Arch, ProposalCounts, Settings, Task, paper_settings
from moco.transfer.recipe import TransferRecipe

Sides = Annotated[tuple[Side, ...], Field(min_length=1)]


class SizeSpec(Spec):
    """To which sizes images are resized."""

    shorter: Sides = (640, 672, 704, 736, 768, 800)  # [pixels] of the shorter side in training: one of these at random
    eval_shorter: Side = 800
    longest: Side = 1333  # [pixels] maximum of the longer side
    flip: Probability = 0.5


class DetectorSpec(Spec):
    """Widths of new layers, and numbers of boxes, for encoders that are smaller than the paper's. None: the paper's."""

    fpn_channels: Positive | None = None
    fc_channels: Positive | None = None
    mask_channels: Positive | None = None
    keypoint_channels: Positive | None = None
    # [pixels] one for each map of an FPN, smallest first. None: the paper's, smaller for the stems 3x3/2 and 3x3
    anchor_sizes: tuple[Positive, ...] | None = None
    proposals: Positive | None = None  # of the RPN for an image, in training and evaluation
    rois: Positive | None = None  # of an image, for the losses of the box head


class DetectionRecipe(TransferRecipe):
    """Fine-tuning of a detector."""

    task: Task = "detect"  # pyright: ignore[reportIncompatibleVariableOverride]
    arch: Arch = "fpn"  # pyright: ignore[reportIncompatibleVariableOverride]
    sizes: SizeSpec = SizeSpec()
    detector: DetectorSpec = DetectorSpec()
    repeat: Annotated[float, Field(gt=0, le=1)] | None = None  # t of LVIS: images of rarer classes come more often

    def settings(self, num_classes: int, num_keypoints: int) -> Settings:
        """The settings of the detector, except its encoder."""
        settings = paper_settings(self.task, self.arch, num_classes, self.bn)
        spec = self.detector.model_dump(exclude_none=True)
        if sizes := spec.pop("anchor_sizes", None):
            spec["anchor_sizes"] = tuple((size,) for size in sizes) if self.arch == "fpn" else (sizes,)
        if rois := spec.pop("rois", None):
            spec["rois_sampled"] = rois
        if proposals := spec.pop("proposals", None):
            before = settings.counts.before_nms
            spec["counts"] = ProposalCounts(before, (proposals, proposals))
        if num_keypoints:
            spec["num_keypoints"] = num_keypoints
        return settings.but(**spec)
