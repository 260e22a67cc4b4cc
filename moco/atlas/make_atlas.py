"""`moco atlas`: a map of images as one HTML file, and as a table that other viewers open."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moco.atlas import page
from moco.atlas.collection import DataSources, open_collection
from moco.atlas.contents import MAP_CLUSTERS, Contents, compact, compute_contents, z_order
from moco.atlas.duplicates import check_threshold
from moco.atlas.table import ATLAS_MADE_BY, has_pyarrow, is_table_of_ours, write_table
from moco.atlas.thumbnails import Sheets
from moco.atomic_output import local_path
from moco.device import workers_for
from moco.evaluate.progress import Progress
from moco.files import check_writable, write_text
from moco.recipe import RecipeError
from moco.text import escape, extra

NAMES = ("atlas.html", "atlas.parquet")  # in the folder of a run
MOST_IMAGES = 20_000  # in a page; a server shows more
LARGE, FEW = 96, 1500  # [pixels] of a thumbnail, for up to so many images
SMALL = 64  # [pixels] of a thumbnail, for more images


@dataclass(frozen=True)
class AtlasFiles:
    """What `write_atlas` has written."""

    page: Path
    table: Path | None  # None: pyarrow is not installed
    images: int
    left_out: dict[str, str]  # name of an image that could not be read -> reason
    layout: str  # the method
    near_duplicates: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "page": str(self.page), "table": None if self.table is None else str(self.table), "images": self.images,
            "left_out": self.left_out, "layout": self.layout, "near_duplicates": self.near_duplicates,
        }  # fmt: skip

    def __str__(self) -> str:
        table = f"not written, as pyarrow is not installed: {extra('atlas')}" if self.table is None else self.table
        return f"{self.page}\n{table}"


def write_atlas(
    source: str | Path,
    data: DataSources | None = None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    clusters: int = MAP_CLUSTERS,
    threshold: float | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> AtlasFiles:
    """Write a map of images as one HTML file, with thumbnails, search by example, near-duplicates and outliers.

    A table beside it, .parquet, has paths, places, properties and neighbours. The same features and settings give the
    same map.

    Args:
        source: a file of `moco embed`, or weights with `data`.
        out: the HTML file. None: atlas.html in the folder of the run, or here.
        seed: of the map.
        clusters: number of clusters of k-means.
        threshold: of near-duplicates, as of `moco.dedup`.

    Raises:
        RecipeError: a setting out of range, more than 20,000 images, or a file that is not an atlas and would be
            replaced. DataError, RecipeError: as of `open_collection`.
    """
    file, progress = atlas_page_path(source, out), progress or Progress()
    check_settings(clusters, threshold)
    collection = open_collection(
        source, data, device=device, workers=workers, max_bad=max_bad, say=say, progress=progress
    )
    if len(collection) > MOST_IMAGES:
        raise RecipeError(
            f"a page has at most {MOST_IMAGES:,} images, and there are {len(collection):,}: moco atlas --serve shows "
            "any number, from this machine"
        )
    contents = compute_contents(collection, seed=seed, clusters=clusters, threshold=threshold, progress=progress)
    write_text(file, _page(contents, title_of(source), workers_for(workers), progress))
    table = None
    if has_pyarrow():
        table = file.with_suffix(".parquet")
        write_table(table, contents)
    near = sum(len(group.others) for group in contents.near_duplicates.groups)
    return AtlasFiles(file, table, len(collection), dict(collection.left_out), contents.layout.method, near)


def _page(contents: Contents, title: str, workers: int, progress: Progress) -> str:
    collection, sheets, places = contents.collection, list[str](), np.zeros(0)
    side = side_of(len(collection))
    if collection.images is not None:
        maker, places = sheets_of(contents, workers)
        progress.stage("thumbnails", len(maker), "sheets")
        for number in range(len(maker)):
            sheets.append(base64.b64encode(maker.sheet(number)).decode())
            progress.add()
    data = page.page_data(contents, title=title, made_by=ATLAS_MADE_BY, places=places, side=side)
    features = page.pack_array(compact(collection.x), "i1")
    return page.render_atlas(title, data | {"encodes": False}, features=features, sheets=sheets, served=False)


def sheets_of(contents: Contents, workers: int) -> tuple[Sheets, np.ndarray]:
    """The sheets of thumbnails, in an order that follows the map, and the place of each image's thumbnail."""
    collection = contents.collection
    order = z_order(contents.layout.xy)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return Sheets(collection.require_images(), collection.ids[order], side_of(len(order)), workers), places


def side_of(count: int) -> int:
    """[pixels] The side of a thumbnail among so many images."""
    return LARGE if count <= FEW else SMALL


def title_of(source: str | Path) -> str:
    path = Path(source)
    return path.resolve().name if path.exists() else str(source)


def atlas_page_path(source: str | Path, out: str | Path | None) -> Path:
    """The HTML file to write. Raises RecipeError if it cannot be written."""
    run = Path(source)
    if out is None:
        out = (run if (run / "recipe.json").is_file() else Path()) / NAMES[0]
    file = local_path(out)
    if file.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"--out expects a name that ends in .html, got {escape(str(file))}")
    if not file.parent.is_dir():
        raise RecipeError(f"{escape(str(file))} cannot be written: its folder does not exist. Create it first")
    for one, is_ours in ((file, _is_page), (file.with_suffix(".parquet"), is_table_of_ours)):
        if one.is_symlink() or (one.exists() and not (one.is_file() and is_ours(one))):
            raise RecipeError(f"{escape(str(one))} exists and is not an atlas: move it away, or name another --out")
    check_writable(file)
    return file


def check_settings(clusters: int, threshold: float | None) -> None:
    """Raise RecipeError for a setting out of range."""
    if clusters < 1:
        raise RecipeError(f"expected at least one cluster, got {clusters}")
    check_threshold(threshold)


def _is_page(file: Path) -> bool:
    with file.open("rb") as content:
        return f'name="generator" content="{page.ATLAS_GENERATOR}"'.encode() in content.read(4096)
