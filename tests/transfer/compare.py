"""Compare a detector's outputs with the recorded ones, and list what exceeds the tolerances."""

from collections.abc import Iterator

from torch import Tensor

from moco.transfer.models.detector import Detector
from moco.transfer.models.detectron2_names import detectron2_names
from tests.transfer.recorded import Recorded, in_order

EXACT = 0.0


def outside_of_detections(file: Recorded, detector: Detector) -> list[str]:
    """In evaluation mode, on the second image alone."""
    detector.eval()
    proposals: list[Tensor] = []
    handle = detector.rpn.register_forward_hook(lambda _, inputs, out: proposals.append(out[0][0].boxes))
    found = detector(file.images()[1:], sizes=file.sizes()[1:])[0]
    handle.remove()
    return list(_detections(file, found | {"proposals": proposals[0]}))


def _detections(file: Recorded, found: dict) -> Iterator[str]:
    tolerances = {
        "proposals": 0.01,
        "boxes": 0.01,
        "scores": 1e-4,
        "labels": EXACT,
        "mask_probs": 2e-3,
        "keypoints": 0.01,
    }
    for kind, tolerance in tolerances.items():
        if kind not in found:
            continue
        wanted = file[f"solo/0/{'classes' if kind == 'labels' else kind}"]
        if found[kind].shape != wanted.shape:
            yield kind
        elif kind == "keypoints":
            off = (found[kind] - wanted).abs()
            yield from ["keypoints"] * bool(off[..., :2].max() > tolerance)
            yield from ["keypoint scores"] * bool(off[..., 2].max() > 1e-4)
        elif (found[kind] - wanted).abs().max() > tolerance:
            yield kind
    if "masks" in found and (
        found["masks"].shape != file["solo/0/masks"].shape or (found["masks"] != file["solo/0/masks"]).sum() > 10
    ):
        yield "masks"


def outside_of_training(file: Recorded, detector: Detector) -> list[str]:
    """The losses, the gradients and BN's statistics of one step."""
    detector.train()
    with in_order():
        losses = detector(file.images(), file.targets())
    found = list[str]()
    for name, value in losses.items():
        wanted = file[f"train/loss/{name}"].item()
        if abs(value.item() / wanted - 1) > 2e-5:
            found.append(name)
    sum(losses.values()).backward()
    state = detector.state_dict(keep_vars=True)
    ours = {theirs: state[name] for name, theirs in detectron2_names(detector).items()}
    for name, norm in zip(file.arrays["train/grad_names"].tolist(), file["train/grad_norms"].tolist(), strict=True):
        grad = ours[name].grad if name in ours else None
        if grad is None or abs(grad.norm().item() - norm) > 0.02 * norm + 1e-6:
            found.append(f"gradient of {name}")
    for key in (key for key in file.arrays if key.startswith("train/bn_after/")):
        x = ours.get(key.removeprefix("train/bn_after/"))
        if x is None or (x - file[key]).abs().max() > 2e-5:
            found.append(key)
    return found
