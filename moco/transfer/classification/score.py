"""The accuracies of a classifier on test images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from moco.data.loader.loader import eval_batches
from moco.data.sources.images import Images
from moco.evaluate.features import batch_for, set_eval_mode
from moco.transfer.classification.model import Classifier
from moco.transfer.classification.recipe import ClassificationRecipe

TOP = 5
CLASSES_FOR_TOP5 = 10  # with fewer classes, top-5 accuracy is not computed


def logits_of(model: Classifier, images: Images, recipe: ClassificationRecipe, *, workers: int) -> Float[Tensor, "n K"]:
    """The logits of every image in order, on the CPU. Raises DataError for an image that cannot be read."""
    place, data = next(model.parameters()).device, recipe.data_spec
    batches = eval_batches(images, data, batch_size=batch_for(data), workers=workers, device=place)
    with set_eval_mode(model):
        return torch.cat([model.logits(x).float().cpu() for x, _ in batches])


def accuracies(logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"]) -> dict[str, float]:
    """In percent: top1; top5 with 10 classes or more; per_class, the mean of top1 over the classes that occur."""
    right = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
    scores = {"top1": _percent(right[:, 0])}
    if logits.shape[1] >= CLASSES_FOR_TOP5:
        scores["top5"] = _percent(right.any(dim=1))
    of_classes = [right[labels == label, 0].double().mean() for label in labels.unique()]
    return scores | {"per_class": 100 * float(torch.stack(of_classes).mean())}


def details_by_class(
    logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """For each class with test images: their number, top1 in percent, and the wrong class that is predicted most."""
    answers = logits.argmax(dim=1)
    details: dict[str, dict[str, Any]] = {}
    for label in map(int, labels.unique()):
        counts = torch.bincount(answers[labels == label], minlength=len(classes))
        images, right = int(counts.sum()), int(counts[label])
        counts[label] = 0
        wrong = classes[int(counts.argmax())] if counts.any() else None
        details[classes[label]] = {"images": images, "top1": 100 * right / images, "most_often_taken_for": wrong}
    return details


def frequency_scores(train: Int64[np.ndarray, "m"], test: Int64[np.ndarray, "n"], num_classes: int) -> dict[str, float]:
    """The accuracies of a baseline that ranks the classes by their number of training images, for every image."""
    counts = torch.from_numpy(np.bincount(train, minlength=num_classes))
    order = torch.argsort(counts, descending=True, stable=True)
    ranks = torch.empty(num_classes)
    ranks[order] = torch.arange(num_classes, 0, -1).float()
    return accuracies(ranks.expand(len(test), -1), torch.from_numpy(test))


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
