"""The atlas as one HTML file that needs no other file and no network.

Names of files, folders and classes are data in a JSON block, and the script writes them as text only. A
Content-Security-Policy in the page allows its own style sheet and script, by their SHA-256.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from moco.atlas.contents import CategoryColumn, Contents, NumberColumn
from moco.atlas.thumbnails import TILES_ACROSS
from moco.text import one_line

ATLAS_GENERATOR = "momentum-contrast atlas"  # in the page, so that an atlas is recognised
SCRIPTS = ("data.js", "search.js", "map.js", "panel.js", "main.js")  # in this order


def render_atlas(title: str, data: Mapping[str, Any], *, features: str, sheets: Sequence[str], served: bool) -> str:
    """The page.

    Args:
        data: as of `page_data`.
        features: of `compact`, in base64; empty if a server searches.
        sheets: of thumbnails, WebP in base64; none if a server has them.
        served: a server answers the page's requests; otherwise it may not make any.
    """
    parts = files("moco.atlas").joinpath("templates")
    style, script = parts.joinpath("atlas.css").read_text(), "\n".join(parts.joinpath(n).read_text() for n in SCRIPTS)
    environment = Environment(
        loader=PackageLoader("moco.atlas"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("atlas.html").render(
        title=one_line(title), generator=ATLAS_GENERATOR, policy=policy(style, script, served=served), style=style,
        script=script, data=as_json({**data, "served": served}), features=features, sheets=sheets,
    )  # fmt: skip


def page_data(contents: Contents, *, title: str, made_by: str, places: np.ndarray, side: int) -> dict[str, Any]:
    """What the page's script reads, as values for JSON. Arrays are little-endian, in base64.

    Args:
        places: of each image's thumbnail among all, or empty without thumbnails.
        side: [pixels] of a thumbnail.
    """
    collection = contents.collection
    images = collection.images
    roots = [] if images is None else [one.root for one in images.sources]
    prefixes = [] if images is None else [one.prefix for one in images.sources]
    origins = np.zeros(0) if images is None or len(roots) < 2 else images.origin[collection.ids]
    return {
        "title": title, "made_by": made_by, "count": len(collection), "method": contents.layout.method,
        "note": contents.layout.note, "left_out": len(collection.left_out), "names": list(collection.names),
        "roots": roots, "prefixes": prefixes, "origins": pack_array(origins, "<u2"),
        "xy": pack_array(contents.layout.xy, "<f4"), "properties": [_property(one) for one in contents.properties],
        "threshold": contents.near_duplicates.threshold,
        "groups": [[group.keep, *group.others] for group in contents.near_duplicates.groups],
        "group_similarities": [[1.0, *group.similarities] for group in contents.near_duplicates.groups],
        "outliers": list(contents.outliers),
        "outlier_similarities": [round(float(contents.similarities[i, :5].mean()), 4) for i in contents.outliers],
        "places": pack_array(places, "<u4"), "side": side, "across": TILES_ACROSS,
    }  # fmt: skip


def _property(one: CategoryColumn | NumberColumn) -> dict[str, Any]:
    if isinstance(one, CategoryColumn):
        return {"name": one.name, "values": list(one.values), "codes": pack_array(one.codes, "<u4")}
    return {"name": one.name, "unit": one.unit, "numbers": pack_array(one.numbers, "<f8")}


def pack_array(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def as_json(value: Any) -> str:
    """JSON in ASCII that cannot end the element it is in."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def policy(style: str, script: str, *, served: bool) -> str:
    """The Content-Security-Policy of a page with this style and script."""
    own = "'self'" if served else "'none'"
    pictures = "'self' blob: data:" if served else "blob: data:"
    return (
        f"default-src 'none'; img-src {pictures}; connect-src {own}; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
