"""Thumbnails: the central square of each image, many of them together on a sheet, as WebP."""

import io
import os
import threading
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image

from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import eval_batches
from moco.data.sources.folder import Folder
from moco.data.sources.images import Subset
from moco.recipe import DataSpec

TILES_ACROSS = 16  # thumbnails in a row of a sheet, and rows
ON_A_SHEET = TILES_ACROSS**2
GREY = 128  # of an image that cannot be read
QUALITY = 60  # of WebP
BATCH = 32  # images of a thread at a time
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Sheets:
    """Sheets of thumbnails in the order `ids`. They are made when they are needed."""

    images: Folder
    ids: Int64[np.ndarray, "n"]  # of the images, in the order of the thumbnails
    side: int  # [pixels] of a thumbnail
    workers: int

    def __len__(self) -> int:
        return -(-len(self.ids) // ON_A_SHEET)

    def sheet(self, number: int) -> bytes:
        """One sheet as WebP. An image that cannot be read is a grey square."""
        ids = self.ids[number * ON_A_SHEET : (number + 1) * ON_A_SHEET]
        pixels = np.full((ON_A_SHEET, self.side, self.side, 3), GREY, dtype=np.uint8)
        spec = DataSpec(size=self.side, eval_resize=self.side, mean=(0, 0, 0), std=(1, 1, 1))
        some = Subset(self.images, ids)
        batches = eval_batches(
            some, spec, batch_size=BATCH, workers=self.workers, device=CPU, quarantine=Quarantine(None, len(ids), 1)
        )
        for x, which in batches:
            pixels[which.numpy()] = (x * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return _webp(_together(pixels))


def _together(pixels: UInt8[np.ndarray, "n s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
    side = pixels.shape[1]
    rows = pixels.reshape(TILES_ACROSS, TILES_ACROSS, side, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(rows.reshape(TILES_ACROSS * side, TILES_ACROSS * side, 3))


def _webp(pixels: UInt8[np.ndarray, "h w 3"], quality: int = QUALITY) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


class Previews:
    """Single images, reduced to a size, as WebP: what the local server shows of an original."""

    def __init__(self, images: Folder, ids: Int64[np.ndarray, "n"]):
        self.images, self.ids = images, ids
        self._lock = threading.Lock()  # one at a time: an original may need much memory

    def read(self, row: int, longest: int) -> bytes | None:
        """The image with a longer side of at most `longest` pixels; None if it cannot be read, or is another one now.

        So a file that was replaced later, by a link for example, is not shown.
        """
        index = int(self.ids[row])
        with self._lock:
            try:
                if self.images.local:
                    status = os.stat(self.images.path(index))
                    if (status.st_size, status.st_mtime_ns) != (self.images.sizes[index], self.images.mtimes[index]):
                        return None
                pixels = self.images.read(index)
            except (BadImage, OSError):
                return None
            image = Image.fromarray(pixels)
            image.thumbnail((longest, longest))
            return _webp(np.asarray(image), 80)
