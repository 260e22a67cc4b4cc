"""`moco check` finds what it says it finds, and its verdict is a run's."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_pictures import make_pictures

from moco.data.check.check import check
from moco.data.check.inspect_file import inspect_file
from moco.data.sources.folder import find_images
from moco.recipes.auto import MIN_IMAGES


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_pictures(tmp_path / "photos", 20, side=40)


def report_of(folder: Path, **options):
    return check(find_images(folder), **options)


def test_sound_images_are_fit(folder):
    report = report_of(folder)
    assert report.to_dict() | {"fit": True, "unfit": [], "bad": {}, "odd": {}, "same_bytes": []} == report.to_dict()
    assert report.kinds == {"PNG RGB": 20}
    assert report.sides == {"32 to 63": 20}


@pytest.mark.parametrize(
    ("mode", "side", "proposed"),
    [("RGB", 64, []), ("L", 64, ["xray"]), ("RGB", 40, ["small"]), ("I;16", 40, ["xray", "small"])],
)
def test_views_are_proposed_for_grey_and_for_small_images(tmp_path, mode: str, side: int, proposed: list[str]):
    for number in range(3):
        Image.new(mode, (side, side + number), number).save(tmp_path / f"{number}.png")
    report = report_of(tmp_path)
    assert len(report.views) == len(proposed)
    assert all(name in text for name, text in zip(proposed, report.views, strict=True))
    assert all(text in str(report) for text in report.views)


def test_one_image_in_colour_is_enough_for_the_usual_views(tmp_path):
    for number, mode in enumerate(["L", "L", "RGB"]):
        Image.new(mode, (64, 64), number).save(tmp_path / f"{number}.png")
    assert report_of(tmp_path).views == []


def test_bad_files_are_named_with_the_reason(folder):
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert list(report_of(folder).bad) == ["cut.jpg"]
    assert "cut.jpg: " in str(report_of(folder))


@pytest.mark.parametrize(
    ("bad", "max_bad", "fit"), [(10, None, True), (11, None, False), (2, 1, False), (2, 0.1, True)]
)
def test_the_verdict_is_by_the_limit_of_a_run(folder, bad: int, max_bad: float | None, fit: bool):
    for i in range(bad):
        (folder / f"bad{i}.png").write_bytes(b"nothing")
    assert (not report_of(folder, max_bad=max_bad).unfit) is fit


def test_fewer_images_than_a_recipe_can_be_fitted_to_are_not_fit(tmp_path):
    assert report_of(make_pictures(tmp_path / "enough", MIN_IMAGES)).unfit == []
    assert "at least 16" in report_of(make_pictures(tmp_path / "few", MIN_IMAGES - 1)).unfit[0]


def test_files_with_the_same_bytes_are_found_whatever_their_names(folder):
    (folder / "copy.jpg").write_bytes((folder / "0003.png").read_bytes())
    assert report_of(folder).to_dict()["same_bytes"] == [["0003.png", "copy.jpg"]]


def test_bad_files_with_the_same_bytes_are_found_too(folder):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"nothing")
    assert report_of(folder).to_dict()["same_bytes"] == [["a.png", "b.png"]]


def test_near_duplicates_are_looked_for_when_asked(folder):
    with Image.open(folder / "0003.png") as image:
        image.point(lambda value: value * 0.9).save(folder / "darker.png")
    assert report_of(folder).near is None
    assert report_of(folder, near_duplicates=True).to_dict()["near_duplicates"] == [["0003.png", "darker.png"]]


def test_files_with_the_same_bytes_are_not_near_duplicates_as_well(folder):
    (folder / "copy.png").write_bytes((folder / "0003.png").read_bytes())
    assert report_of(folder, near_duplicates=True).near == []


def test_the_number_of_workers_changes_no_result(folder):
    (folder / "bad.png").write_bytes(b"nothing")
    whole = [report_of(folder, near_duplicates=True, workers=workers).to_dict() for workers in (0, 1, 3)]
    assert whole[0] == whole[1] == whole[2]


def test_the_report_is_json_and_its_text_prints(folder):
    (folder / "x\x1b[31m\n\u202e<script>.png").write_bytes(b"nothing")
    report = report_of(folder)
    assert json.loads(json.dumps(report.to_dict()))["bad"] == report.bad
    assert str(report).replace("\n", "").isprintable()


def noise(height: int = 40, width: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


ODD = {
    "smaller than 32 pixels": ("x.png", noise(31, 40), {}),
    "longer than 4:1": ("x.png", noise(40, 161), {}),
    "of one colour": ("x.png", Image.new("RGB", (40, 40), "red"), {}),
    "mode I;16": ("x.png", Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)), {}),
    "mode CMYK": ("x.jpg", noise().convert("CMYK"), {}),
    "transparent": ("x.png", Image.merge("RGBA", [*noise().split(), noise().getchannel(0)]), {}),
    "of several frames": ("x.gif", noise(), {"save_all": True, "append_images": [noise().rotate(90)]}),
    "turned by EXIF": ("x.jpg", noise(), {"exif": turned()}),
    "PNG with the ending .jpg": ("x.jpg", noise(), {"format": "PNG"}),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_images_are_reported(tmp_path, what: str):
    name, image, options = ODD[what]
    image.save(tmp_path / name, **options)
    assert inspect_file(str(tmp_path / name), compare=False, deep=False).odd == (what,)


@pytest.mark.parametrize(
    ("name", "shape"), [("x.png", (32, 40)), ("x.png", (40, 160)), ("x.jpeg", (64, 64)), ("x.tif", (64, 64))]
)
def test_usual_images_are_not_reported(tmp_path, name: str, shape: tuple[int, int]):
    noise(*shape).save(tmp_path / name)
    assert inspect_file(str(tmp_path / name), compare=False, deep=True).odd == ()


def test_the_size_is_that_of_the_upright_image(tmp_path):
    noise(40, 50).save(tmp_path / "x.jpg", exif=turned())
    assert inspect_file(str(tmp_path / "x.jpg"), compare=False, deep=False).size == (40, 50)


def test_a_photo_whose_data_end_early_decodes_and_only_check_deep_reports_it(tmp_path):
    """Decoders fill the rest with grey when the end mark is there."""
    buffer = io.BytesIO()
    noise(64, 64).save(buffer, "JPEG")
    data = buffer.getvalue()
    (tmp_path / "x.jpg").write_bytes(data[:-1500] + data[-2:])
    assert inspect_file(str(tmp_path / "x.jpg"), compare=False, deep=False) == inspect_file(
        str(tmp_path / "x.jpg"), compare=False, deep=True
    )._replace(odd=())
    assert "premature end" in inspect_file(str(tmp_path / "x.jpg"), compare=False, deep=True).odd[0]
