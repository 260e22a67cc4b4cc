"""The small pictures of a page: WebP as data URIs, each stored once, and the tiles that show them."""

import base64
import hashlib
import io
import re
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

QUALITY = 75  # of WebP
SHARP = 48  # [pixels] smaller pictures are enlarged without smoothing
DATA_URI = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]+={0,2}", re.ASCII)


class Tiles:
    """The pictures of a page. `pictures` are data URIs by id; the id is a hash of the content."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}

    def add(self, pixels: UInt8[np.ndarray, "H W c"], *, longest: int | None = None) -> str:
        """Store a picture of 3 channels, or 4 with transparency, and return its id.

        Args:
            longest: [pixels] larger ones are reduced to it.
        """
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if longest is not None:
            image.thumbnail((longest, longest))
        file = io.BytesIO()
        image.save(file, "WEBP", quality=QUALITY, method=2)
        name = hashlib.sha256(file.getvalue()).hexdigest()[:12]
        self.pictures[name] = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
        return name

    def tile(
        self, pixels: UInt8[np.ndarray, "H W 3"], name: str, *, caption: str = "", mark: str = "",
        longest: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A tile for the page.

        Args:
            name: of the image, its alternative text.
            mark: "right" or "wrong", for a frame; empty for none.
        """
        return {
            "picture": self.add(pixels, longest=longest), "name": name, "caption": caption, "mark": mark,
            "sharp": max(pixels.shape[:2]) < SHARP,
        }  # fmt: skip


def is_data_uri(address: object) -> bool:
    """Whether this is the data URI of a WebP picture."""
    return isinstance(address, str) and DATA_URI.fullmatch(address) is not None
