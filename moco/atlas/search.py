"""Search by example: images like some, and unlike others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from moco.atlas.collection import Collection, DataSources, is_features_file, normalize_rows, open_collection
from moco.atlas.index import Index, build_index
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError

LESS = 0.5  # weight of the negatives: a query moves away from them by half as much as towards the positives


class SearchResult(NamedTuple):
    """A found image."""

    row: int  # in the collection
    similarity: float  # cosine, of its feature and the query
    path: str


def combine(
    positives: Float32[np.ndarray, "p D"], negatives: Float32[np.ndarray, "q D"] | None = None
) -> Float32[np.ndarray, "D"]:
    """Rocchio's query: the mean of the positives minus half the mean of the negatives, of length 1.

    Raises:
        ValueError: no positives.
    """
    if not len(positives):
        raise ValueError("expected at least one image to search for")
    query = normalize_rows(positives).mean(axis=0)
    if negatives is not None and len(negatives):
        query = query - LESS * normalize_rows(negatives).mean(axis=0)
    return normalize_rows(query)


def find(
    collection: Collection, query: Float32[np.ndarray, "D"], *, k: int, index: Index | None = None
) -> list[SearchResult]:
    """The k images of the collection that are nearest to the query, the nearest first."""
    index = index or build_index(collection.x, exact=True)
    similarities, rows = index.nearest(query[None], min(k, len(collection)))
    pairs = zip(similarities[0].tolist(), rows[0].tolist(), strict=True)
    return [SearchResult(row, round(value, 6), collection.path(row)) for value, row in pairs if row >= 0]


def search(
    weights: str | Path,
    queries: Sequence[str | Path],
    data: DataSources,
    *,
    unlike: Sequence[str | Path] = (),
    k: int = 20,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> list[SearchResult]:
    """The images of `data` that are most similar to the `queries`, and less to those of `unlike`.

    Args:
        weights: the encoder of the queries, and of `data`.
        data: folders or lists of images, or a file of `moco embed` with the same weights.

    Raises:
        DataError: an image that cannot be read, no images. RecipeError: weights that cannot be used, or that did not
            make the features of the file.
    """
    progress = progress or Progress()
    features = isinstance(data, str | Path) and is_features_file(data)
    source = data if isinstance(data, str | Path) and features else weights
    collection = open_collection(
        source, None if features else data, device=device, workers=workers, max_bad=max_bad, say=say, progress=progress
    )
    encoder = collection.encoder or load_pretrained(weights, device=device)
    check_same_size(encoder, collection)
    progress.stage("search")
    positives: Any = encoder.embed(list(queries), workers=0)
    negatives: Any = encoder.embed(list(unlike), workers=0) if unlike else None
    return find(collection, combine(positives, negatives), k=k)


def check_same_size(encoder: Pretrained, collection: Collection) -> None:
    """Raise RecipeError if the encoder cannot have made the features."""
    size, expected = collection.x.shape[1], encoder.encoder.num_features
    if size != expected:
        raise RecipeError(
            f"{encoder.name} gives {expected:,} features, and the file of features has {size:,}: give the "
            "weights that `moco embed` made it with"
        )
