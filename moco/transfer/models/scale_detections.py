"""Convert detections from pixels of the network's input to pixels of the image, and to the format of metrics."""

from torchvision.ops import clip_boxes_to_image

from moco.transfer import predicted_objects as scored
from moco.transfer.masks import rle_of_bitmap
from moco.transfer.models.boxes import Detections
from moco.transfer.models.masks import paste


def to_size(detections: Detections, own: tuple[int, int], wanted: tuple[int, int]) -> Detections:
    """Scale detections from an image of size `own` (height, width) to `wanted`, and drop boxes without area.

    Adds "masks" n x H x W if there are "mask_probs".
    """
    boxes = detections["boxes"]
    scale = boxes.new_tensor([wanted[1] / own[1], wanted[0] / own[0]])
    boxes = clip_boxes_to_image(boxes * scale.repeat(2), wanted)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    moved = {name: value[keep] for name, value in (detections | {"boxes": boxes}).items()}
    if "keypoints" in moved:
        moved["keypoints"] = moved["keypoints"] * scale.new_tensor([*scale.tolist(), 1])
    if "mask_probs" in moved:
        moved["masks"] = paste(moved["mask_probs"], moved["boxes"], wanted)
    return moved


def for_metrics(detections: Detections) -> scored.Detections:
    """Detections in the format of `moco.transfer.metrics`: arrays on the host, masks as run lengths."""
    names = [name for name in ("boxes", "labels", "scores", "keypoints") if name in detections]
    arrays = {name: detections[name].cpu().numpy() for name in names}
    masks = detections["masks"].cpu().numpy() if "masks" in detections else None
    return scored.Detections(**arrays, masks=None if masks is None else tuple(rle_of_bitmap(mask) for mask in masks))
