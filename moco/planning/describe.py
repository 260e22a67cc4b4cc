"""Sentences on time, and on what limits it."""

from moco.planning.choose import ImageCost
from moco.text import duration

STARVED = 0.3  # training waits for this share of a step: reading is the bottleneck


def describe_time(seconds: float, image: ImageCost, waited: float) -> str:
    """How long a run takes, how that was found out, and what most of it is spent on."""
    limit = "reading images" if waited > STARVED else "the network"
    return f"about {duration(seconds)}: {1 / image.step:,.0f} images a second, measured; most of it is for {limit}"


def megapixels(pixels: float) -> str:
    """`12.2 megapixels`, `0.05 megapixels`, and of small images their side: `28 x 28 pixels`."""
    side = round(pixels**0.5)
    return f"{side} x {side} pixels" if pixels < 10_000 else f"{pixels / 1e6:.2g} megapixels"


def format_plan_table(columns: list[list[tuple[str, str]]]) -> str:
    """A table with a column for each run. Every column has the same rows, (name, text)."""
    names = [name for name, _ in columns[0]]
    rows = [[name, *(column[index][1] for column in columns)] for index, name in enumerate(names)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
