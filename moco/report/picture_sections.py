"""The sections of pictures of a report: views, neighbours, map, near-duplicates, outliers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from moco.atlas.collection import normalize_rows
from moco.atlas.duplicates import outliers
from moco.atlas.index import neighbours_of_all
from moco.atlas.layout import pca
from moco.data.check.near_duplicates import find_near, signature_of
from moco.report.map_picture import draw_map
from moco.report.neighbours_of_run import NEAREST, QUERIES, correct, first_queries, neighbour_rows
from moco.report.pictures import TILE
from moco.report.sample import RUN, ImageSample, Views
from moco.report.tiles import Tiles
from moco.text import plural

VIEWED = 6  # images whose views are shown
GROUPS, IN_A_GROUP = 6, 6  # near-duplicates that are shown
OUTLIERS = 12  # that are shown
Section = dict[str, Any]


@dataclass(frozen=True)
class PagePictures:
    """The pictures of a page.

    Attributes:
        text: of which images, by which encoder.
        sections: for report.json.
        images: data URIs, by the ids that the sections have.
    """

    text: str
    sections: Sequence[Mapping[str, Any]]
    images: Mapping[str, str]


def page_pictures(sample: ImageSample, views: Views | None, *, step: int) -> PagePictures:
    """The pictures of a run's images, by its encoder after `step`.

    Raises:
        DataError: a sample of fewer than two images.
    """
    first_queries(sample)  # raises it
    tiles = Tiles()
    sections = [
        *([] if views is None else [_views(sample, views, tiles)]), _first_neighbours(sample, tiles),
        *_worst_neighbours(sample, views, tiles), _map(sample, tiles), _near_duplicates(sample, tiles),
        _outliers(sample, tiles),
    ]  # fmt: skip
    text = (
        f"From {len(sample):,} of the {plural(sample.total, 'image')}, drawn at random, by the encoder after step "
        f"{step:,}."
    )
    return PagePictures(text, sections, tiles.pictures)


def _views(sample: ImageSample, views: Views, tiles: Tiles) -> Section:
    groups = []
    for i in range(min(VIEWED, len(views.rows))):
        row = int(views.rows[i])
        name = sample.names[row]
        groups.append({"name": "", "tiles": [
            tiles.tile(sample.crops[row], name, caption=_caption(sample, row)),
            tiles.tile(views.queries[i], f"query view of {name}", caption="query view"),
            tiles.tile(views.keys[i], f"key view of {name}", caption="key view"),
        ]})  # fmt: skip
    found = int((views.places == 1).sum())
    share = f"{100 * found / len(views.places):.0f} %"
    text = (
        "Images, and two views of each as the network sees them in training. If you cannot tell that two views are of "
        "one image, the augmentation may be too strong; if they look alike, too weak. After training, "
        f"{found:,} of {plural(len(views.places), 'query view')} ({share}) are more similar to their own key view than "
        f"to the key views of the other images, by the features of the encoder; by chance it would be 1."
    )
    return {"kind": "views", "id": "views", "title": "Views", "text": text, "groups": groups}


def _first_neighbours(sample: ImageSample, tiles: Tiles) -> Section:
    queries = first_queries(sample)
    labels, classes = sample.labels, sample.classes
    captions = (
        [_caption(sample, int(i)) for i in queries] if labels is None else [classes[int(i)] for i in labels[queries]]
    )
    which = "random images" if labels is None else "one image of each of the first classes"
    text = f"The {NEAREST} nearest of {len(sample):,} images to {which}, by raw pixels and by the encoder of this run."
    if labels is not None:
        text += " Frames: green, of the query's class (the folder's name); dashed, of another one."
    return _sheet(sample, queries, captions, tiles) | {"id": "neighbours", "title": "Nearest neighbours", "text": text}


def _worst_neighbours(sample: ImageSample, views: Views | None, tiles: Tiles) -> list[Section]:
    """The queries that the encoder is worst at: by classes if they are known, else by views."""
    labels = sample.labels
    if labels is not None:
        rows = neighbour_rows(sample, np.arange(len(sample)))[RUN]
        right = (labels[rows] == labels[:, None]).sum(axis=1)
        queries = np.argsort(right, kind="stable")[:QUERIES]
        captions = [f"{sample.classes[int(labels[i])]}: {right[i]} of {rows.shape[1]} right" for i in queries]
        none = int((right == 0).sum())
        text = (
            f"The images with the fewest neighbours of their own class by the encoder. {none:,} of {len(sample):,} "
            "have none. Look for wrong labels, and for what the encoder takes as alike."
        )
    elif views is not None:
        order = np.lexsort((views.similarities, -views.places))
        rows, first = np.unique(views.rows[order], return_index=True)
        chosen = order[np.sort(first)[:QUERIES]]
        queries = views.rows[chosen]
        among = len(views.places)
        captions = [f"own key view: place {place:,} of {among:,}" for place in views.places[chosen]]
        text = (
            "The images whose two views are hardest to tell from the views of others: the place of the own key view "
            "among all key views, by similarity to the query view."
        )
    else:
        return []
    section = _sheet(sample, queries, captions, tiles)
    return [section | {"id": "worst", "title": "Nearest neighbours of the worst queries", "text": text}]


def _sheet(sample: ImageSample, queries: Int64[np.ndarray, " q"], captions: list[str], tiles: Tiles) -> Section:
    """A row for each query: the query, and a block of neighbours for each kind of feature."""
    rows: list[dict[str, Any]] = [
        {"query": tiles.tile(sample.crops[i], sample.names[i], caption=caption), "blocks": []}
        for i, caption in zip(map(int, queries), captions, strict=True)
    ]
    for name, found in neighbour_rows(sample, queries).items():
        verdicts = correct(sample, queries, found)
        for number, row in enumerate(rows):
            marks = [""] * found.shape[1]
            if verdicts is not None:
                marks = ["right" if one else "wrong" for one in verdicts[number]]
            row["blocks"].append({
                "name": name, "text": "" if verdicts is None else f"{sum(verdicts[number])} of {len(marks)} right",
                "tiles": [
                    tiles.tile(sample.crops[i], sample.names[i], mark=mark, longest=2 * TILE)
                    for i, mark in zip(map(int, found[number]), marks, strict=True)
                ],
            })  # fmt: skip
    return {"kind": "neighbours", "rows": rows}


def _map(sample: ImageSample, tiles: Tiles) -> Section:
    picture, shown = draw_map(pca(normalize_rows(sample.features[RUN].numpy())), sample.crops)
    text = (
        "Images with similar features are close together (the first two principal components of the features, spread). "
        f"{shown:,} of {plural(len(sample), 'image')} have a free place near their own. moco atlas makes a map of all "
        "images, with search."
    )
    return {
        "kind": "map", "id": "map", "title": "Map", "text": text, "picture": tiles.add(picture),
        "width": picture.shape[1], "height": picture.shape[0], "name": f"{shown:,} images by similarity",
    }  # fmt: skip


def _caption(sample: ImageSample, row: int) -> str:
    """The name of a file without its folders. The tile has the whole name as its alternative text."""
    return os.path.basename(sample.names[row]) or sample.names[row]


def _near_duplicates(sample: ImageSample, tiles: Tiles) -> Section:
    signatures = [signature_of(crop) for crop in sample.crops]
    hashes = np.array([number for number, _ in signatures], dtype=np.uint64)
    found = find_near(hashes, np.stack([small for _, small in signatures]))
    found.sort(key=len, reverse=True)
    count = sum(map(len, found))
    if found:
        text = (
            f"{count:,} of {plural(len(sample), 'image')} are in {plural(len(found), 'group')} of nearly the same "
            "picture (another size, compression or brightness, or frames of one scene). Copies in the queue are false "
            "negatives. moco check and moco dedup find them among all images."
        )
    else:
        text = f"None among {plural(len(sample), 'image')}. moco check and moco dedup look at all images."
    groups = []
    for group in found[:GROUPS]:
        more = len(group) - IN_A_GROUP
        groups.append({
            "name": plural(len(group), "image") + (f", the first {IN_A_GROUP} are shown" if more > 0 else ""),
            "tiles": [
                tiles.tile(sample.crops[i], sample.names[i], caption=_caption(sample, i)) for i in group[:IN_A_GROUP]
            ],
        })  # fmt: skip
    return {"kind": "tiles", "id": "duplicates", "title": "Near-duplicates", "text": text, "groups": groups}


def _outliers(sample: ImageSample, tiles: Tiles) -> Section:
    similarities, _ = neighbours_of_all(normalize_rows(sample.features[RUN].numpy()), NEAREST)
    rows, mean = outliers(similarities, OUTLIERS), similarities.mean(axis=1)
    text = (
        f"The images that are least similar to their {similarities.shape[1]} nearest neighbours by the encoder (mean "
        "cosine similarity below each): rare subjects, damaged files, or images that do not belong here."
    )
    shown = [
        tiles.tile(sample.crops[i], sample.names[i], caption=f"{mean[i]:.2f} {_caption(sample, i)}") for i in rows
    ]  # fmt: skip
    return {
        "kind": "tiles", "id": "outliers", "title": "Outliers", "text": text, "groups": [{"name": "", "tiles": shown}]
    }  # fmt: skip
