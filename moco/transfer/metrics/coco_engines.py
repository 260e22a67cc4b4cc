"""Run the evaluation of COCO and LVIS by faster-coco-eval, or that of COCO by pycocotools, the reference.

Both take lists of dicts in COCO's format and return precision (T x R x K x A x M) and recall (T x K x A x M): T
thresholds of IoU, R recalls, K classes, A ranges of areas, M limits on the detections of an image. -1: no objects.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float64

from moco.transfer.optional_packages import require

Rows = list[dict[str, Any]]
Curves = tuple[Float64[np.ndarray, "T R K A M"], Float64[np.ndarray, "T K A M"]]


def run_fast(
    images: Rows,
    categories: Rows,
    truth: Rows,
    results: Rows,
    kind: str,
    *,
    sigmas: np.ndarray | None = None,
    lvis_most: int | None = None,
) -> Curves:
    """Evaluate by faster-coco-eval.

    Args:
        sigmas: of the keypoints.
        lvis_most: evaluate as LVIS does, with this limit on the detections of an image.
    """
    library = require("faster_coco_eval", task="the score of a detector")
    annotations = [_annotations(library, images, categories, rows) for rows in (truth, results)]
    evaluation = library.COCOeval_faster(
        *annotations, kind, print_function=_print_nothing, kpt_oks_sigmas=sigmas, lvis_style=lvis_most is not None
    )
    evaluation.params.catIds = [row["id"] for row in categories]
    if lvis_most is not None:
        evaluation.params.maxDets = [lvis_most]
    return _curves(evaluation)


def run_reference(
    images: Rows, categories: Rows, truth: Rows, results: Rows, kind: str, *, sigmas: np.ndarray | None = None
) -> Curves:
    """Evaluate by pycocotools."""
    coco, cocoeval = (require(f"pycocotools.{name}", task="the reference score") for name in ("coco", "cocoeval"))
    with redirect_stdout(io.StringIO()):  # it prints its progress
        annotations = [_annotations(coco, images, categories, rows) for rows in (truth, results)]
        evaluation = cocoeval.COCOeval(*annotations, kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        return _curves(evaluation)


def _annotations(library: ModuleType, images: Rows, categories: Rows, rows: Rows) -> Any:
    """The library's object for a set of annotations."""
    result = library.COCO()
    result.dataset = {"images": images, "categories": categories, "annotations": rows}
    result.createIndex()
    return result


def _curves(evaluation: Any) -> Curves:
    evaluation.evaluate()
    evaluation.accumulate()
    params, result = evaluation.params, evaluation.eval
    sides: Sequence[Sequence[Any]] = (params.iouThrs, params.recThrs, params.catIds, params.areaRng, params.maxDets)
    shape = tuple(len(side) for side in sides)
    precision = np.asarray(result["precision"], dtype=np.float64).reshape(shape)
    return precision, np.asarray(result["recall"], dtype=np.float64).reshape(shape[0], *shape[2:])


def _print_nothing(*_: object) -> None:
    """Replaces the library's print."""
