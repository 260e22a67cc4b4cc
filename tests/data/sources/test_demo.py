"""The demo's images come out of the package whole, however the cache was left."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moco.data.sources import demo
from moco.data.sources.demo import demo_data, unpack
from moco.files import cache_folder

PICTURES = 14_000
ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}  # of the processes started here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_data(tmp_path_factory.mktemp("cache"))


def test_there_are_12000_training_and_2000_test_pictures_in_ten_classes(folder: Path):
    for split, count in (("train", 12_000), ("test", 2_000)):
        classes = sorted(path.name for path in (folder / split).iterdir())
        sizes = [len(os.listdir(folder / split / name)) for name in classes]
        assert len(classes) == 10
        assert sum(sizes) == count
        assert min(sizes) > 0.08 * count  # Fashion-MNIST is balanced


def test_pictures_are_grey_and_32_pixels_square(folder: Path):
    for path in list((folder / "train" / "bag").iterdir())[:20]:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (32, 32))


def test_garments_are_placed_anywhere(folder: Path):
    pictures = [np.asarray(Image.open(path)) for path in sorted((folder / "test").glob("*/*.png"))]
    covered = np.mean([picture > 0 for picture in pictures], axis=0)
    assert covered[0].max() > 0  # the first and the last row and column are reached
    assert covered[-1].max() > 0
    assert covered[:, 0].max() > 0
    assert covered[:, -1].max() > 0
    areas = [int((picture > 0).sum()) for picture in pictures]
    assert max(areas) <= 28 * 28


def test_a_second_call_does_not_change_the_demo_cache(folder: Path):
    before = folder.stat()
    assert demo_data(folder.parent) == folder
    after = folder.stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


@pytest.mark.parametrize("damage", ["missing", "short", "extra", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str):
    archive, folder = small_archive(), tmp_path / "demo"
    unpack(archive, folder)
    victim = folder / "test" / "bag" / "1.png"
    if damage == "missing":
        victim.unlink()
    elif damage == "short":
        victim.write_bytes(b"x")
    elif damage == "extra":
        (victim.parent / "2.png").write_bytes(b"x")
    else:
        for path in folder.rglob("*.png"):
            path.unlink()
    unpack(archive, folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.png")} == {"0.png": b"zero", "1.png": b"one"}
    assert os.listdir(tmp_path) == ["demo"]  # nothing is left beside it


@pytest.mark.slow
def test_a_whole_demo_cache_that_lost_a_picture_is_noticed(tmp_path: Path):
    folder = demo_data(tmp_path)
    next(folder.glob("train/coat/*.png")).unlink()
    assert len(list(demo_data(tmp_path).glob("*/*/*.png"))) == PICTURES


def test_files_of_a_cache_made_again_have_the_same_dates(tmp_path: Path):
    dates = []
    for name in ("one", "two"):
        unpack(small_archive(), tmp_path / name)
        dates.append((tmp_path / name / "test" / "bag" / "1.png").stat().st_mtime_ns)
    assert dates[0] == dates[1]


@pytest.mark.slow
def test_processes_that_build_the_demo_at_once_all_get_a_complete_folder(tmp_path: Path):
    code = "import sys, pathlib; from moco.data.sources import demo; print(demo.demo_data(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) for _ in range(3)]
    folders = {process.communicate(timeout=120)[0].strip() for process in racing}
    assert [process.returncode for process in racing] == [0, 0, 0]
    assert len(folders) == 1
    assert len(list(Path(folders.pop()).glob("*/*/*.png"))) == PICTURES


def test_the_cache_is_found_through_xdg_cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "momentum-contrast"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG rules: to be ignored
    assert cache_folder() == Path.home() / ".cache" / "momentum-contrast"


def test_a_damaged_installation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="Install the package again"):
        demo_data(tmp_path)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "a\\..\\evil.png", "c:evil.png"])
def test_an_archive_cannot_write_outside_of_its_folder(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="inside of the archive"):
        unpack(small_archive(name), tmp_path / "deep" / "demo")
    assert not list(tmp_path.rglob("*.png"))


def test_the_notice_keeps_the_licence_and_the_copyright():
    notice = (Path(demo.__file__).parents[1] / "demo" / "NOTICE").read_text()
    assert "2017 Zalando SE" in notice
    assert "Permission is hereby granted, free of charge" in notice


SOURCE = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it


@pytest.mark.slow
@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the original data: Debian's package dataset-fashion-mnist")
def test_the_script_makes_the_archive_again():
    command = [sys.executable, ROOT / "benchmarks" / "make_demo_data.py", SOURCE, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the same")


def small_archive(third: str = "") -> zipfile.ZipFile:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("test/bag/0.png", b"zero")
        archive.writestr("test/bag/1.png", b"one")
        if third:
            archive.writestr(third, b"three")
    return zipfile.ZipFile(buffer)
