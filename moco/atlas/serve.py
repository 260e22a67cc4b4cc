"""`moco atlas --serve`: the atlas of any number of images, shown by a server on this machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from moco.atlas import page
from moco.atlas.answers import MOST_UPLOAD, Answers
from moco.atlas.collection import DataSources, open_collection
from moco.atlas.contents import MAP_CLUSTERS, Contents, compute_contents
from moco.atlas.make_atlas import check_settings, sheets_of, side_of, title_of
from moco.atlas.search import check_same_size
from moco.atlas.server import Server
from moco.atlas.table import ATLAS_MADE_BY
from moco.device import workers_for
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.progress import Progress


def make_server(
    source: str | Path,
    data: DataSources | None = None,
    *,
    encoder: str | Path | None = None,
    port: int = 0,
    seed: int = 0,
    clusters: int = MAP_CLUSTERS,
    threshold: float | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Server:
    """A server of the atlas, listening; `serve_forever` answers requests. Arguments as of `write_atlas`, and

    Args:
        encoder: the weights that made the features, where `source` is a file of them: for files that are dropped in.
        port: 0: a free one.

    Raises:
        RecipeError: a setting out of range, a port that is not free, or an encoder that did not make the features.
            DataError, RecipeError: as of `open_collection`.
    """
    check_settings(clusters, threshold)
    server = Server(port)
    try:
        collection = open_collection(
            source, data, device=device, workers=workers, max_bad=max_bad, say=say, progress=progress
        )
        pretrained = collection.encoder
        if encoder is not None:
            pretrained = load_pretrained(encoder, device=device)
            check_same_size(pretrained, collection)
        contents = compute_contents(collection, seed=seed, clusters=clusters, threshold=threshold, progress=progress)
        server.answers = _answers(contents, title_of(source), pretrained, workers_for(workers))
    except BaseException:
        server.server_close()
        raise
    return server


def _answers(contents: Contents, title: str, encoder: Pretrained | None, workers: int) -> Answers:
    collection = contents.collection
    sheets, places = (None, np.zeros(0)) if collection.images is None else sheets_of(contents, workers)
    found = page.page_data(contents, title=title, made_by=ATLAS_MADE_BY, places=places, side=side_of(len(collection)))
    found |= {"encodes": encoder is not None, "most_bytes": MOST_UPLOAD}
    return Answers(contents, page.render_atlas(title, found, features="", sheets=[], served=True), sheets, encoder)
