"""The scores of a segmenter on test images, and of the baseline that ignores the image."""

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from moco.transfer.metrics.miou import Confusion
from moco.transfer.models.fcn import FCN
from moco.transfer.segmentation.loader import eval_pairs
from moco.transfer.semantic import IGNORED, SemanticSet


def score_segmenter(segmenter: FCN, test: SemanticSet, *, workers: int) -> dict[str, float]:
    """Scores in percent over all known pixels of the test images, each image at its own size."""
    return score_confusion(count_pixels(segmenter, test, workers=workers)[0])


def count_pixels(segmenter: FCN, test: SemanticSet, *, workers: int) -> tuple[Confusion, Float64[np.ndarray, "n"]]:
    """The known pixels of all test images by true and predicted class, and the share of wrong ones in each image.

    Images are predicted and counted one by one, so memory does not grow with their number. The segmenter is in eval
    mode afterwards.
    """
    segmenter.eval()
    confusion, wrong = Confusion(test.classes), np.zeros(len(test))
    for number, (image, labels) in enumerate(eval_pairs(test, workers=workers)):
        predicted, known = predict(segmenter, image), labels != IGNORED
        confusion.add(labels, predicted)
        wrong[number] = (predicted != labels)[known].sum() / max(known.sum(), 1)
    return confusion, wrong


@torch.no_grad()
def predict(segmenter: FCN, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """The class of each pixel."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
    return segmenter.predict([pixels])[0].cpu().numpy()


def score_constant(answer: int, pixels: Int64[np.ndarray, "K"], classes: tuple[str, ...]) -> dict[str, float]:
    """The scores of always answering with class `answer`. `pixels`: the number of labelled pixels of each class."""
    confusion = Confusion(classes)
    confusion.counts[:, answer] = pixels
    return score_confusion(confusion)


def score_confusion(confusion: Confusion) -> dict[str, float]:
    """mIoU, the accuracy of all pixels, the mean accuracy of the classes, and the IoU of each class that occurs."""
    result = confusion.scores()
    scores = {"mIoU": result.miou, "pixel_accuracy": result.pixel_accuracy}
    scores |= {"class_accuracy": np.nanmean(result.accuracy)}
    scores |= {f"IoU {name}": iou for name, iou in zip(result.classes, result.iou, strict=True) if not np.isnan(iou)}
    return {name: 100 * float(value) for name, value in scores.items()}
