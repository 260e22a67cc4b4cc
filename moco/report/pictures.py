"""Sheets of images: nearest neighbours by an encoder, and the views of training."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from moco.files import write_atomically

RIGHT, WRONG = "#009E73", "#D55E00"  # green and red, safe for the colour-blind (Okabe and Ito)
INK, PALE, HAIR = "#222222", "#666666", "#CCCCCC"
TILE = 64  # [pixels] side of a neighbour
EDGE = 4  # [pixels] width of a frame
GAP = 6  # [pixels] between tiles
ACROSS = 4  # neighbours on a line
QUERY = 112  # [pixels] side of a query
MARGIN = 24  # [pixels] around the sheet and between its blocks
LINE = 28  # [pixels] height of a line of text

Picture = UInt8[np.ndarray, "_ _ 3"]  # of any height and width


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each query by one kind of feature, nearest first."""

    name: str  # of the features: "raw pixels", "MoCo"
    images: Sequence[Sequence[Picture]]  # [query][rank]
    correct: Sequence[Sequence[bool]] | None = None  # [query][rank]: is it of the query's class? None: no labels


def neighbour_sheet(
    out: Path,
    queries: Sequence[Picture],
    *,
    neighbours: Sequence[Neighbours],
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Write a PNG with a row for each query, and its neighbours beside it.

    A neighbour of the query's class has a green frame; others have a red frame and a cross in a corner.

    Args:
        neighbours: each makes a block of columns.
        labels: a caption under each query, usually its class.

    Raises:
        ValueError: the numbers of queries, labels and rows of neighbours differ.
    """
    _check(queries, neighbours, labels)
    tile = TILE + 2 * EDGE + GAP
    lines = max(-(-len(some) // ACROSS) for each in neighbours for some in each.images)
    width = min(ACROSS, max(len(some) for each in neighbours for some in each.images)) * tile - GAP
    head = MARGIN + (2 * LINE if title else LINE) + GAP  # [pixels] above the first row
    row = max(lines * tile, QUERY + (LINE if labels else 0)) + MARGIN
    first = MARGIN + QUERY + MARGIN  # left edge of the first block
    size = (first + (width + MARGIN) * len(neighbours), head + row * len(queries))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN // 2), title, INK, _font(26))
    draw.text((MARGIN, head - 10), "query", PALE, _font(20), anchor="ls")
    for i, query in enumerate(queries):
        _place(sheet, query, (MARGIN, head + i * row), QUERY)
        if labels:
            at = (MARGIN + QUERY // 2, head + i * row + QUERY + LINE - GAP)
            draw.text(at, _shortened(labels[i], QUERY + MARGIN, 20), INK, _font(20), anchor="ms")
    for each in neighbours:
        _block(sheet, each, (first, head), width, row)
        first += width + MARGIN
    _save(sheet, out)


def view_sheet(
    out: Path, images: Sequence[Picture], *, views_q: Sequence[Picture], views_k: Sequence[Picture], columns: int = 3
) -> None:
    """Write a PNG: each image beside the two views of it that a step of training compares.

    Raises:
        ValueError: not as many views as images.
    """
    if not len(images) == len(views_q) == len(views_k) > 0:
        raise ValueError(f"expected as many views as images, got {len(images)}, {len(views_q)} and {len(views_k)}")
    side, columns = 2 * TILE, min(columns, len(images))
    width, row, head = 3 * side + 2 * GAP, side + MARGIN, MARGIN + 36
    rows = -(-len(images) // columns)
    size = (MARGIN + columns * (width + 2 * MARGIN) - MARGIN, head + rows * row)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, triple in enumerate(zip(images, views_q, views_k, strict=True)):
        left, top = MARGIN + i % columns * (width + 2 * MARGIN), head + i // columns * row
        for j, (name, picture) in enumerate(zip(("image", "query view", "key view"), triple, strict=True)):
            x = left + j * (side + GAP)
            _place(sheet, picture, (x, top), side)
            if i < columns:
                draw.text((x + side // 2, head - 12), name, PALE, _font(20), anchor="ms")
    _save(sheet, out)


def _check(queries: Sequence[Picture], neighbours: Sequence[Neighbours], labels: Sequence[str] | None) -> None:
    counts = {"labels": len(queries) if labels is None else len(labels)}
    for each in neighbours:
        counts[f"rows of {each.name}"] = len(each.images)
        if each.correct is not None:
            counts[f"rows of `correct` of {each.name}"] = len(each.correct)
    wrong = {name: count for name, count in counts.items() if count != len(queries)}
    if wrong or not neighbours or not len(queries):
        raise ValueError(f"expected one row of neighbours for each of {len(queries)} queries, got {wrong or counts}")


def _block(sheet: Image.Image, each: Neighbours, corner: tuple[int, int], width: int, row: int) -> None:
    """Draw the neighbours by one kind of feature, below its name and the number of correct ones."""
    draw, (left, head) = ImageDraw.Draw(sheet), corner
    tally = ""
    if each.correct is not None:
        verdicts = [bool(one) for some in each.correct for one in some]
        tally = f"{sum(verdicts)} of {len(verdicts)} right"
    room = width - round(_font(20).getlength(tally)) - GAP
    draw.text((left, head - 10), _shortened(each.name, room, 22), INK, _font(22), anchor="ls")
    draw.text((left + width, head - 10), tally, PALE, _font(20), anchor="rs")
    tile = TILE + 2 * EDGE + GAP
    for i, pictures in enumerate(each.images):
        for j, picture in enumerate(pictures):
            x, y = left + EDGE + j % ACROSS * tile, head + EDGE + i * row + j // ACROSS * tile
            _place(sheet, picture, (x, y), TILE)
            if each.correct is not None:
                _frame(draw, (x, y), bool(each.correct[i][j]))


def _frame(draw: ImageDraw.ImageDraw, at: tuple[int, int], right: bool) -> None:
    """Draw a frame around the tile at `at`; with a cross if it is wrong, for the colour-blind."""
    (x, y), far = at, TILE + EDGE - 1
    colour = RIGHT if right else WRONG
    draw.rectangle((x - EDGE, y - EDGE, x + far, y + far), outline=colour, width=EDGE)
    if not right:
        left, top, arm = x + TILE - 12, y + 2, 9
        draw.rectangle((left - 4, y - EDGE, x + far, top + arm + 4), fill=colour)
        draw.line((left, top, left + arm, top + arm), fill="white", width=3)
        draw.line((left, top + arm, left + arm, top), fill="white", width=3)


def _place(sheet: Image.Image, picture: Picture, at: tuple[int, int], side: int) -> None:
    """Paste `picture` into the centre of a square, scaled to fit. Small pictures are enlarged with sharp pixels."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    x, y = at[0] + (side - size[0]) // 2, at[1] + (side - size[1]) // 2
    ImageDraw.Draw(sheet).rectangle(
        (x - 1, y - 1, x + size[0], y + size[1]), outline=HAIR
    )  # an outline for white pictures
    sheet.paste(image, (x, y))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _shortened(text: str, width: int, size: int) -> str:
    """`text`, cut so that it is at most `width` pixels wide."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _save(sheet: Image.Image, out: Path) -> None:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")  # optimize=True takes ten times as long, for a file a little smaller
    write_atomically(out, lambda file: file.write(buffer.getvalue()))
