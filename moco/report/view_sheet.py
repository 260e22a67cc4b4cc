"""A sheet of views: some images, each beside pairs of views as training makes them."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from moco.data.augment import cpu
from moco.data.augment.random_parameters import random_numbers
from moco.data.decode.bands import to_picture
from moco.data.decode.decode import BadImage
from moco.data.sources.band_images import in_bands
from moco.data.sources.images import DataError, Images
from moco.recipe import DataSpec

TILE, GAP, HEAD = 112, 6, 18  # [pixels]
BACKGROUND = (224, 224, 224)  # grey: drawings and documents are white


def draw_view_sheet(images: Images, data: DataSpec, *, seed: int = 0, rows: int = 8, pairs: int = 3) -> Image.Image:
    """One row for each of `rows` images, evenly spaced: the image as in evaluation, and its views in `pairs` epochs.

    Raises:
        DataError: no image can be read.
    """
    wanted = np.unique(np.linspace(0, len(images) - 1, rows).astype(np.int64))
    images, bands, views = in_bands(images, data), len(data.bands or ()), data.all_views
    shown: list[list[UInt8[np.ndarray, "S S 3"]]] = []
    for index in wanted:
        try:
            image = images.read(int(index))
        except BadImage:
            continue
        kind = np.uint8 if data.bands is None else np.float32
        crops = [np.empty((1, size, size, data.channels), kind) for _ in range(pairs) for _, size in views]
        drawn = [
            cpu.DrawnView(view, random_numbers(seed, epoch, ids=np.array([index]), view_index=place, bands=bands))
            for epoch in range(pairs)
            for place, (view, _) in enumerate(views)
        ]
        cpu.write_views(image, drawn, 0, crops, coloured=True)
        tiles = [cpu.eval_crop(image, data).transpose(1, 2, 0), *(crop[0] for crop in crops)]
        shown.append([to_picture(tile) for tile in tiles])
    if not shown:
        raise DataError(f"none of {len(wanted)} images can be read: moco check says why")
    names = [*("query", "key")[: len(data.views)], *["key"] * (data.key_views - 1), *["small"] * data.small_crops]
    heads = ["image", *names * pairs]
    return _sheet(shown, heads)


def _sheet(rows: list[list[UInt8[np.ndarray, "S S 3"]]], heads: list[str]) -> Image.Image:
    """The tiles in a grid, under their headings."""
    step = TILE + GAP
    sheet = Image.new("RGB", (GAP + step * len(heads), HEAD + step * len(rows) + GAP), BACKGROUND)
    text = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        text.text((GAP + step * column, 3), head, fill="black")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            how = Image.Resampling.NEAREST if len(tile) < TILE else Image.Resampling.BILINEAR
            picture = Image.fromarray(np.ascontiguousarray(tile)).resize((TILE, TILE), how)
            sheet.paste(picture, (GAP + step * x, HEAD + step * y))
    return sheet
