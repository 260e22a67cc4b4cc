"""What `moco transfer` refuses before it writes anything: overlaps of --out, links, and images that do not fit."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.transfer.transfer import transfer
from tests.transfer.draw_scenes import make_scenes


@pytest.fixture
def scenes(tmp_path) -> Path:
    return make_scenes(tmp_path / "data", 6, seed=0)


def contents(folder: Path) -> dict[str, str]:
    def shown(path: Path) -> str:
        if path.is_symlink():
            return f"link to {os.readlink(path)}"
        return str(path.read_bytes()) if path.is_file() else "no file"

    return {str(path.relative_to(folder)): shown(path) for path in folder.rglob("*")}


def refuse(tmp_path: Path, data: Path, out: Path, match: str, error=RecipeError, **options) -> None:
    """Assert that the call is refused and that nothing in `tmp_path` has changed."""
    before = contents(tmp_path)
    arguments = {"init": {"random": "random"}, "model": "resnet18", "settings": {"optim.batch_size": 2}} | options
    with pytest.raises(error, match=match):
        transfer("detect", data, out, schedule="1", device="cpu", **arguments)
    assert contents(tmp_path) == before


def test_an_out_that_overlaps_the_data_is_refused(tmp_path, scenes):
    (images,) = {path.parent for path in scenes.parent.rglob("*.png")} | {
        path.parent for path in scenes.parent.rglob("*.jpg")
    }
    refuse(tmp_path, scenes, scenes.parent, "contains --data")
    refuse(tmp_path, scenes, tmp_path, "contains --data")
    refuse(tmp_path, scenes, images, "contains --data|has images in it")
    refuse(tmp_path, scenes.parent, scenes.parent, "is --data")
    refuse(tmp_path, scenes.parent, scenes.parent / "runs", "lies in --data")
    other = make_scenes(tmp_path / "test", 4, seed=1)
    refuse(tmp_path, scenes, tmp_path / "test", "contains --test", test=other)
    refuse(tmp_path, scenes, tmp_path / "test" / "runs", "lies in --test", test=other.parent)


def test_a_folder_of_images_beside_the_annotations_is_no_out(tmp_path, scenes):
    images = tmp_path / "data" / "images"
    content = json.loads(scenes.read_text())
    images.mkdir(exist_ok=True)
    for one in content["images"]:
        name = Path(one["file_name"]).name
        shutil.move(next(scenes.parent.rglob(name)), images / name)
        one["file_name"] = f"images/{name}"
    scenes.write_text(json.dumps(content))
    refuse(tmp_path, scenes, images, "has images in it")


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
@pytest.mark.parametrize("name", ["out", "out/random"])
def test_a_link_or_a_file_in_place_of_a_folder_is_refused(tmp_path, scenes, name, target):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / target)
    refuse(tmp_path, scenes, tmp_path / "out", f"{name} is a link")
    (tmp_path / name).unlink()
    (tmp_path / name).write_text("mine")
    refuse(tmp_path, scenes, tmp_path / "out", f"{name} is a file")


def test_overwriting_does_not_remove_the_weights_that_it_starts_from(tmp_path, scenes):
    weights = tmp_path / "out" / "a" / "trial_0"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_text("mine")
    refuse(
        tmp_path,
        scenes,
        tmp_path / "out",
        r"--init a=.*trial_0 lies in --out",
        init={"a": str(weights)},
        overwrite=True,
    )


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: path.write_bytes(b"junk"), "not a JPEG"),
        (lambda path: Image.new("RGB", (50, 40)).save(path), "has 50 x 40 pixels, .*annotations are for 128 x 96"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is not a file"),
        (lambda path: path.unlink(), "there is no file 0002"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["data", "test"])
def test_an_image_that_cannot_be_used_is_found_before_anything_is_written(tmp_path, scenes, damage, match, part):
    other = make_scenes(tmp_path / "test", 4, seed=1)
    damage(sorted(path for path in (tmp_path / part).rglob("*") if path.suffix in (".png", ".jpg"))[2])
    refuse(tmp_path, scenes, tmp_path / "out", match, error=DataError, test=other)
