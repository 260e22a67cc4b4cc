"""The settings of a detector, and those of each task and architecture of the paper (appendix A.1 to A.4)."""

from dataclasses import dataclass, replace
from typing import Literal

Task = Literal["detect", "instance", "keypoints", "densepose", "lvis", "cityscapes"]
Arch = Literal["c4", "dc5", "fpn"]
Norm = Literal["tuned", "sync", "frozen"]
OutputKind = Literal["boxes", "masks", "keypoints", "densepose"]  # what a detector predicts


@dataclass(frozen=True)
class ProposalCounts:
    """Number of proposals of the RPN per image, in training and in evaluation."""

    before_nms: tuple[int, int]  # of each feature map
    after_nms: tuple[int, int]  # of all together


@dataclass(frozen=True)
class Settings:
    """The settings of a detector, except its backbone. Defaults are Detectron2's (config/defaults.py) for R50-FPN."""

    num_classes: int  # K, without the background
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))  # [pixels], per feature map
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    counts: ProposalCounts = ProposalCounts((2000, 1000), (1000, 1000))
    anchors_sampled: int = 256  # of an image, for the RPN's losses; half of them positive
    rois_sampled: int = 512  # of an image, for the losses of the box head; a quarter of them positive
    box_beta: float = 0.0  # of the box head's smooth L1 loss; 0: L1
    score_threshold: float = 0.05
    max_detections: int = 100  # of an image
    fpn_channels: int = 256
    fc_channels: int = 1024  # of the two layers of the box head
    mask_channels: int = 256
    keypoint_channels: int = 512  # of the keypoint and the dense pose head
    num_keypoints: int = 17
    fpn_norm: bool = True  # BN in the FPN (without it, training MoCo's encoder diverges: the authors' issue 23)
    head_norm: bool = False  # BN in the mask head; the authors have none there (their issue 34)
    box_norm: bool = True  # C4: the BN after res5 (the authors' Res5ROIHeadsExtraNorm)
    multiple: int = 32  # batches are padded to a multiple of this [pixels]; C4 and dilated C5 are not padded

    def but(self, **changes: object) -> "Settings":
        return replace(self, **changes)  # pyright: ignore[reportArgumentType]

    def with_anchors_times(self, factor: float) -> "Settings":
        """The same settings, with all anchor sizes multiplied by `factor`."""
        return self.but(anchor_sizes=tuple(tuple(size * factor for size in sizes) for sizes in self.anchor_sizes))


KIND: dict[Task, OutputKind] = {
    "detect": "boxes",
    "instance": "masks",
    "lvis": "masks",
    "cityscapes": "masks",
    "keypoints": "keypoints",
    "densepose": "densepose",
}


def paper_settings(task: Task, arch: Arch, num_classes: int, norm: Norm = "tuned") -> Settings:
    """The paper's settings of a task; what the paper does not say is from Detectron2's configuration of that task.

    With frozen BN, new layers have no BN, as in Detectron2's configurations. The paper's LVIS baseline is so (A.4).
    """
    settings = Settings(num_classes, fpn_norm=norm != "frozen", box_norm=norm != "frozen")
    if arch != "fpn":  # Base-RCNN-C4.yaml, Base-RCNN-DilatedC5.yaml: one map with anchors of all sizes
        sizes = (tuple(size for sizes in settings.anchor_sizes for size in sizes),)
        settings = settings.but(anchor_sizes=sizes, counts=ProposalCounts((12000, 6000), (2000, 1000)), multiple=1)
    if task == "keypoints":  # Base-Keypoint-RCNN-FPN.yaml
        settings = settings.but(counts=ProposalCounts(settings.counts.before_nms, (1500, 1000)), box_beta=0.5)
    if task == "lvis":  # LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
        settings = settings.but(score_threshold=1e-4, max_detections=300)
    return settings
