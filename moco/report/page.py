"""Render the content of a report as one HTML file that needs no other file and no network.

Every text is escaped by the template engine. A Content-Security-Policy in the page allows its own style sheet and
script, by their SHA-256, and pictures inside of the page; nothing else is loaded or run.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from moco.report.drawing import draw_chart
from moco.report.tiles import is_data_uri
from moco.text import one_line

MAX_BYTES = 5 * 2**20  # of a page
REPORT_GENERATOR = "momentum-contrast report"  # in the page, so that a report is recognised


def render_report(content: Mapping[str, Any]) -> str:
    """The page of what report.json has.

    Raises:
        ValueError: the page would be larger than MAX_BYTES, or a picture is not a data URI. KeyError: a picture is
            missing.
    """
    style, script = (files("moco.report").joinpath("templates", name).read_text() for name in ("page.css", "page.js"))
    environment = Environment(
        loader=PackageLoader("moco.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_safe_text,
    )  # fmt: skip
    environment.globals.update(draw=draw_chart, picture=partial(_picture, content["images"]))
    shown = {name: part for name, part in content.items() if name != "images"}
    page = environment.get_template("page.html").render(
        report=shown, generator=REPORT_GENERATOR, style=style, script=script, policy=_policy(style, script)
    )
    size = len(page.encode())
    if size > MAX_BYTES:
        raise ValueError(f"expected a page of at most {MAX_BYTES:,} bytes, got {size:,}")
    return page


def _safe_text(value: Any) -> Any:
    """Characters that are not printable are shown as their codes: among them those that reverse the order of text."""
    return one_line(value) if type(value) is str else value


def _picture(pictures: Mapping[str, str], name: str) -> str:
    """A data URI. Raises KeyError for a picture that does not exist, ValueError for another kind of address."""
    address = pictures[name]
    if not is_data_uri(address):
        raise ValueError(f"expected the data URI of a picture, got {str(address)[:40]!r}")
    return address


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
