"""Views for a kind of images: what they change, and how they are chosen."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.data.augment.crop import eval_crop
from moco.data.sources.open import open_images
from moco.recipe import RecipeError
from moco.recipes import named
from moco.recipes.domain_views import DOMAINS, changes_for
from moco.report.view_sheet import GAP, HEAD, TILE, draw_view_sheet


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", ["moco_v2_r50", "moco_v3_r50_100"])
def test_both_views_of_a_recipe_have_the_changes_and_nothing_else_differs(name: str, domain: str):
    before, after = named(name), named(name).but("changed", changes_for(domain))
    expected = {f"data.views.{view}.{key}": value for view in (0, 1) for key, value in DOMAINS[domain].changes.items()}
    fields = after.fields()
    assert {key: fields[key] for key in expected} == expected
    others = {key: value for key, value in before.fields().items() if key not in {*expected, "name"}}
    assert others == {key: fields[key] for key in others}


def test_natural_views_are_those_of_the_recipe():
    assert named("demo").but("demo", changes_for("natural")) == named("demo").but("demo", changes_for(None))


def test_an_unknown_kind_names_those_that_exist():
    with pytest.raises(RecipeError, match="aerial"):
        changes_for("arial")


def test_a_run_has_the_views_and_settings_change_them(tmp_path, pictures, tiny):
    run = moco.pretrain(
        pictures, tmp_path / "run", recipe=tiny, views="aerial", settings={"data.views.1.flip_vertical": 0.25},
        epochs=1, workers=0, device="cpu", report=False, compare=False,
    )  # fmt: skip
    first, second = run.recipe.data.views
    assert (first.flip_vertical, first.rotate90) == (0.5, 0.75)
    assert (second.flip_vertical, second.rotate90) == (0.25, 0.75)


def test_the_command_and_the_call_choose_the_same_views(tmp_path, pictures):
    result = CliRunner().invoke(
        app, ["pretrain", str(pictures), "--out", str(tmp_path / "run"), "--views", "aerial", "--dry-run", "--json"]
    )
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["pretrain", str(pictures), "--out", str(tmp_path / "run"), "--views", "arial"])
    assert result.exit_code == 2
    assert "aerial" in result.output


def tile(sheet: Image.Image, row: int, column: int) -> np.ndarray:
    top, left = HEAD + (TILE + GAP) * row, GAP + (TILE + GAP) * column
    return np.asarray(sheet)[top : top + TILE, left : left + TILE]


def test_the_sheet_shows_images_beside_their_views(tmp_path, tiny):
    """Without any random change, each view is the image."""
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    images = open_images(tmp_path)
    still = {
        "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "jitter.p": 0.0, "grey": 0.0, "blur": 0.0, "flip": 0.0,
    }  # fmt: skip
    changes = {f"data.views.{view}.{key}": value for view in (0, 1) for key, value in still.items()}
    data = tiny.but("still", changes).data
    sheet = draw_view_sheet(images, data, rows=4, pairs=2)
    assert sheet.size == (GAP + 5 * (TILE + GAP), HEAD + 4 * (TILE + GAP) + GAP)
    for row, index in enumerate([0, 3, 6, 9]):
        crop = eval_crop(images.read(index), data).transpose(1, 2, 0)
        expected = np.asarray(Image.fromarray(crop).resize((TILE, TILE), Image.Resampling.NEAREST))
        for column in range(5):
            assert np.array_equal(tile(sheet, row, column), expected)
    upside_down = tiny.but("up", changes | {f"data.views.{view}.flip_vertical": 1.0 for view in (0, 1)}).data
    turned = draw_view_sheet(images, upside_down, rows=4, pairs=2)
    assert np.array_equal(tile(turned, 0, 1), tile(turned, 0, 0)[::-1])


def test_the_command_writes_a_sheet_and_replaces_no_file(tmp_path, pictures):
    out = tmp_path / "views.png"
    command = ["views", str(pictures), "--out", str(out), "--views", "aerial", "--images", "3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "nothing is up or down" in result.output
    assert Image.open(out).height == HEAD + 3 * (TILE + GAP) + GAP
    before = out.read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 2
    assert out.read_bytes() == before
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
