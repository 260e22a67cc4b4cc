"""Build a detector from an encoder, a task and an architecture."""

from torch import nn

from moco.encoders.resnet import Bottleneck, ResNet
from moco.recipe import RecipeError
from moco.transfer.models.backbones import body_of, stem_stride, stride_of
from moco.transfer.models.c4 import C4, Res5Heads
from moco.transfer.models.dc5 import DilatedC5
from moco.transfer.models.densepose import DensePoseBranch
from moco.transfer.models.detector import MEAN, RGB, STD, Detector
from moco.transfer.models.fpn import FPN
from moco.transfer.models.heads import StandardHeads
from moco.transfer.models.keypoints import KeypointBranch
from moco.transfer.models.masks import MaskBranch
from moco.transfer.models.norms import freeze, synchronize
from moco.transfer.models.pooling import Pool
from moco.transfer.models.proposals import ProposalNetwork
from moco.transfer.models.settings import KIND, Arch, Norm, OutputKind, Settings, Task, paper_settings


def build_detector(
    network: nn.Module,
    task: Task,
    arch: Arch,
    num_classes: int,
    *,
    norm: Norm = "tuned",
    settings: Settings | None = None,
    mean: RGB = MEAN,
    std: RGB = STD,
) -> Detector:
    """Build a detector on an encoder's backbone, which becomes part of it. New layers have random weights.

    Args:
        network: one of our ResNets, or for FPN a CNN of timm.
        num_classes: K, without the background.
        norm: "tuned": BN is fine-tuned with the statistics of each device's images. "sync": its statistics are
            synchronized over the ranks, in new layers too. "frozen": the encoder's BN does not change.
        settings: None: the paper's for this task, architecture and norm, with smaller anchors if the encoder has a
            stem for small images.
        mean, std: of RGB in [0, 1], as the encoder was trained.

    Raises:
        RecipeError: the architecture does not fit the network or the task.
    """
    _check(network, task, arch)
    if settings is None:
        settings = paper_settings(task, arch, num_classes, norm).with_anchors_times(stem_stride(network) / 4)
    network = freeze(network) if norm == "frozen" else network
    detector = _detector(network, KIND[task], arch, settings, mean, std)
    if norm == "sync":
        synchronize(detector)
    return detector


def _check(network: nn.Module, task: Task, arch: Arch) -> None:
    if arch != "fpn" and not (isinstance(network, ResNet) and network.net.block is Bottleneck):
        raise RecipeError(
            f"--arch {arch} needs a ResNet of ours with bottleneck blocks (resnet50 or deeper), got a "
            f"{type(network).__name__}: take --arch fpn, or another encoder"
        )
    if arch != "dc5" and isinstance(network, ResNet) and stride_of(network.layer4[0]) == 1:
        raise RecipeError(
            f"--arch {arch} needs an encoder whose last stage has stride 2, and this one was built with "
            "encoder.dilate_last=true: take --arch dc5, or build the encoder without it (the weights fit)"
        )
    if arch != "fpn" and KIND[task] in ("keypoints", "densepose"):
        raise RecipeError(f"{task} needs --arch fpn, as in the paper (appendix A.2, A.3), got --arch {arch}")


def _detector(network: nn.Module, kind: OutputKind, arch: Arch, settings: Settings, mean: RGB, std: RGB) -> Detector:
    if arch == "c4":
        assert isinstance(network, ResNet)
        backbone = C4(network)
        heads = Res5Heads(network, backbone.strides[0], settings)
        pooled, maps, convs = heads.channels, backbone.strides, 0
    else:
        backbone = _pyramid(network, settings) if arch == "fpn" else _dilated(network)
        maps = backbone.strides[:-1] if arch == "fpn" else backbone.strides
        heads = StandardHeads(backbone.channels, maps, settings)
        pooled, convs = backbone.channels, 4
    pool = Pool(14, maps)
    if kind == "masks":
        heads.branches["mask"] = MaskBranch(pooled, settings, pool=pool, convs=convs)
    elif kind == "keypoints":
        heads.branches["keypoints"] = KeypointBranch(pooled, settings, pool=pool)
    elif kind == "densepose":
        heads.branches["densepose"] = DensePoseBranch(pooled, settings, pool=pool._replace(aligned=False, samples=2))
    rpn = ProposalNetwork(backbone.channels, backbone.strides, settings)
    return Detector(backbone, rpn, heads, settings, mean=mean, std=std)


def _pyramid(network: nn.Module, settings: Settings) -> FPN:
    return FPN(body_of(network), settings.fpn_channels, norm=settings.fpn_norm)


def _dilated(network: nn.Module) -> DilatedC5:
    assert isinstance(network, ResNet)
    return DilatedC5(network)
