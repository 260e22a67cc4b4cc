"""Sheets of images, checked by the colours that are found on them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from moco.report.pictures import RIGHT, WRONG, Neighbours, neighbour_sheet, view_sheet

GREEN, RED = ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)


def plain(colour: tuple[int, int, int], height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def sheet_at(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def place(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Where a colour is: top, left, height, width of the box around it."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    assert len(rows), f"{colour} is not on the sheet"
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


def test_neighbours_are_read_line_by_line_from_the_nearest_on(tmp_path: Path):
    colours = [(10 * i + 5, 200, 90) for i in range(8)]
    found = Neighbours("pixels", [[plain(colour) for colour in colours]])
    neighbour_sheet(tmp_path / "a.png", [plain((1, 2, 3))], neighbours=[found])
    sheet = sheet_at(tmp_path / "a.png")
    corners = [place(sheet, colour)[:2] for colour in colours]
    assert corners == sorted(corners)
    assert len({top for top, _ in corners}) == 2


def test_each_query_is_left_of_its_own_neighbours(tmp_path: Path):
    queries = [plain((1, 2, 3)), plain((4, 5, 6))]
    found = Neighbours("pixels", [[plain((250, 0, 1))] * 8, [plain((0, 250, 1))] * 8])
    neighbour_sheet(tmp_path / "a.png", queries, neighbours=[found])
    sheet = sheet_at(tmp_path / "a.png")
    for query, neighbour in (((1, 2, 3), (250, 0, 1)), ((4, 5, 6), (0, 250, 1))):
        top, left, height, width = place(sheet, query)
        first, second = place(sheet, neighbour)[0], sum(place(sheet, neighbour)[::2])
        assert left + width < place(sheet, neighbour)[1]
        assert first < top + height
        assert top < second


def test_kinds_of_features_stand_side_by_side_in_the_order_given(tmp_path: Path):
    colours = [(250, 0, 1), (0, 250, 1), (0, 1, 250)]
    found = [Neighbours(str(i), [[plain(colour)] * 5]) for i, colour in enumerate(colours)]
    neighbour_sheet(tmp_path / "a.png", [plain((9, 9, 9))], neighbours=found)
    boxes = [place(sheet_at(tmp_path / "a.png"), colour) for colour in colours]
    for (_, left, _, width), (_, after, _, _) in itertools.pairwise(boxes):
        assert left + width < after


def test_neighbours_have_a_green_frame_if_right_and_a_red_one_if_wrong(tmp_path: Path):
    right, wrong = (10, 20, 30), (40, 50, 60)
    found = Neighbours("pixels", [[plain(right), plain(wrong)]], [[True, False]])
    neighbour_sheet(tmp_path / "a.png", [plain((1, 2, 3))], neighbours=[found])
    sheet = sheet_at(tmp_path / "a.png")
    for tile, frame in ((right, GREEN), (wrong, RED)):
        top, left, height, width = place(sheet, tile)
        middle_row, middle_column = top + height // 2, left + width // 2
        around = [
            (top - 2, left + 5),
            (top + height + 1, middle_column),
            (middle_row, left - 2),
            (middle_row, left + width + 1),
        ]
        assert {tuple(map(int, sheet[at])) for at in around} == {frame}


def test_a_wrong_one_differs_in_more_than_colour(tmp_path: Path):
    tile = (10, 20, 30)
    for name, verdict in (("right", True), ("wrong", False)):
        found = Neighbours("pixels", [[plain(tile)]], [[verdict]])
        neighbour_sheet(tmp_path / f"{name}.png", [plain((1, 2, 3))], neighbours=[found])
    visible = {n: int((sheet_at(tmp_path / f"{n}.png") == tile).all(axis=2).sum()) for n in ("right", "wrong")}
    assert visible["wrong"] < visible["right"] - 100  # the cross covers a corner


def test_neighbours_have_no_frame_without_labels(tmp_path: Path):
    neighbour_sheet(tmp_path / "a.png", [plain((1, 2, 3))], neighbours=[Neighbours("pixels", [[plain((9, 9, 9))] * 4])])
    sheet = sheet_at(tmp_path / "a.png")
    assert not ((sheet == GREEN).all(axis=2) | (sheet == RED).all(axis=2)).any()


def test_a_picture_keeps_its_aspect_ratio_and_fits_into_a_square(tmp_path: Path):
    square, tall, wide = plain((250, 0, 1), 64, 64), plain((0, 250, 1), 300, 100), plain((0, 1, 250), 5, 10)
    neighbour_sheet(tmp_path / "a.png", [plain((1, 2, 3))], neighbours=[Neighbours("pixels", [[square, tall, wide]])])
    sheet = sheet_at(tmp_path / "a.png")
    (side, _), (height, width), (low, long) = (place(sheet, tuple(p[0, 0].tolist()))[2:] for p in (square, tall, wide))
    assert (height, long) == (side, side)
    assert abs(width - side / 3) <= 1
    assert abs(low - side / 2) <= 1


def test_small_pictures_keep_hard_pixels(tmp_path: Path):
    checks = np.zeros((2, 2, 3), dtype=np.uint8)
    checks[0, 1] = checks[1, 0] = (250, 240, 10)
    checks[0, 0] = checks[1, 1] = (10, 30, 240)
    neighbour_sheet(tmp_path / "a.png", [checks], neighbours=[Neighbours("pixels", [[plain((1, 2, 3))]])])
    sheet = sheet_at(tmp_path / "a.png")
    top, left, height, width = place(sheet, (10, 30, 240))
    inside = sheet[top : top + height, left : left + width].reshape(-1, 3)
    assert {tuple(map(int, pixel)) for pixel in inside} == {(250, 240, 10), (10, 30, 240)}


def test_labels_stand_under_their_queries_and_change_no_picture(tmp_path: Path):
    query, found = plain((1, 2, 3)), [Neighbours("pixels", [[plain((9, 9, 9))] * 8])]
    for name, labels in (("none", None), ("short", ["bag"]), ("long", ["a class with a name of many words and more"])):
        neighbour_sheet(tmp_path / f"{name}.png", [query], neighbours=found, labels=labels)
    none, short, long = (sheet_at(tmp_path / f"{name}.png") for name in ("none", "short", "long"))
    top, left, height, width = place(short, (1, 2, 3))
    assert place(none, (1, 2, 3)) == (top, left, height, width)
    for sheet in (short, long):
        dark = (sheet < 100).all(axis=2)
        assert dark[top + height + 2 :, : left + width + 12].any()
        assert not dark[top + height + 2 :, left + width + 12 : place(sheet, (9, 9, 9))[1] - 5].any()  # cut in time


@pytest.mark.parametrize(
    ("rows", "labels", "verdicts", "named"),
    [
        (1, None, None, "rows of pixels': 1"),
        (2, ["only one"], None, "labels': 1"),
        (2, None, [[True]], "rows of `correct` of pixels': 1"),
    ],
)
def test_a_count_that_is_not_the_queries_is_an_error_that_names_it(
    tmp_path: Path, rows: int, labels: list[str] | None, verdicts: list[list[bool]] | None, named: str
):
    found = Neighbours("pixels", [[plain((9, 9, 9))]] * rows, verdicts)
    with pytest.raises(ValueError, match=named):
        neighbour_sheet(tmp_path / "a.png", [plain((1, 2, 3))] * 2, neighbours=[found], labels=labels)
    assert not (tmp_path / "a.png").exists()


def test_views_stand_at_the_right_of_their_image(tmp_path: Path):
    images, q, k = ([plain((10 * i, 100 + base, base)) for i in range(5)] for base in (0, 60, 120))
    view_sheet(tmp_path / "a.png", images, views_q=q, views_k=k)
    sheet = sheet_at(tmp_path / "a.png")
    for triple in zip(images, q, k, strict=True):
        corners = [place(sheet, tuple(map(int, picture[0, 0])))[:2] for picture in triple]
        assert len({top for top, _ in corners}) == 1
        assert corners == sorted(corners)


def test_views_without_their_image_are_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="expected as many views as images, got 1, 2 and 1"):
        view_sheet(tmp_path / "a.png", [plain((1, 1, 1))], views_q=[plain((1, 1, 1))] * 2, views_k=[plain((1, 1, 1))])
