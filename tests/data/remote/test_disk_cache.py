"""Copies of objects on the disk: believed only when whole, bounded in size, shared by processes."""

import multiprocessing
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from moco.cli import app
from moco.data.remote.cache import DiskCache
from moco.data.remote.store import SIZE_UNKNOWN, ByteRange
from moco.data.sources.open import open_images
from tests.data.loader.loading import loader, same


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """The folder of a cache that is large enough."""
    monkeypatch.setenv("MOCO_REMOTE_CACHE", str(tmp_path / "copies"))
    monkeypatch.setenv("MOCO_REMOTE_CACHE_SIZE", "1G")
    return tmp_path / "copies"


def copies(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


def part(number: int, size: int = 1000) -> ByteRange:
    return ByteRange(f"http://h/{number}", size, 7)


def asked_for_images(plan) -> int:
    return sum(count for what, count in plan.asked.items() if what.startswith("GET") and ".png" in what)


def test_later_runs_read_nothing_from_the_store(photos, site, plan, kept):
    first = list(loader(open_images(f"{site}/photos"), workers=2))
    asked = asked_for_images(plan)
    assert len(copies(kept)) == 24
    assert same(list(loader(open_images(f"{site}/photos"), workers=2)), first)
    assert asked_for_images(plan) == asked


def test_other_processes_find_the_copies(photos, site, plan, kept):
    list(loader(open_images(f"{site}/photos"), steps=range(3), workers=2, processes=True))
    assert len(copies(kept)) == 24
    asked = asked_for_images(plan)
    open_images(f"{site}/photos").read(5)
    assert asked_for_images(plan) == asked


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_copy_is_not_believed(photos, site, plan, kept, damage):
    images, local = open_images(f"{site}/photos"), open_images(photos)
    images.read(5)
    (copy,) = copies(kept)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b""}[damage])
    assert np.array_equal(images.read(5), local.read(5))
    assert asked_for_images(plan) == 2
    images.read(5)
    assert asked_for_images(plan) == 2  # the new copy is whole


def test_a_new_version_of_an_image_is_not_mistaken_for_the_old_one(photos, site, plan, kept):
    plan.etags = True
    images = open_images(f"{site}/photos")
    images.open(5)
    path = photos / images.names[5]
    os.utime(path, (0, 0))  # the same ETag
    open_images(f"{site}/photos").open(5)
    assert asked_for_images(plan) == 1
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # the same size
    path.write_bytes(content)
    assert open_images(f"{site}/photos").open(5).read() == content


def test_an_object_without_etag_and_date_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, 10**6)
    cache.put(ByteRange("http://h/1", SIZE_UNKNOWN, 0), b"one")
    assert cache.get(ByteRange("http://h/1", SIZE_UNKNOWN, 0)) is None
    assert copies(tmp_path) == []


def test_parts_of_an_object_are_told_apart(tmp_path):
    cache, ranges = DiskCache(tmp_path, 10**6), [ByteRange("http://h/1", 3, 7, place) for place in (0, 3)]
    cache.put(ranges[0], b"one")
    cache.put(ranges[1], b"two")
    assert [cache.get(one) for one in ranges] == [b"one", b"two"]
    assert cache.get(ByteRange("http://h/1", 3, 7)) is None


def test_the_size_is_kept_and_what_was_used_last_stays(tmp_path):
    size = 200_000
    cache, used = DiskCache(tmp_path, size), part(0)
    cache.put(used, b"0" * 1000)
    for number in range(1, 1000):
        cache.put(part(number), b"n" * 1000)
        total = sum(path.stat().st_size for path in copies(tmp_path)) if number % 50 == 0 else 0
        assert total <= 1.02 * size
        if number % 10 == 0:
            assert cache.get(used) is not None
    assert sum(cache.get(part(number)) is not None for number in range(1000)) > 150
    assert cache.get(part(999)) is not None


def test_an_object_that_is_large_for_the_cache_does_not_empty_it(tmp_path):
    cache = DiskCache(tmp_path, 10_000)
    cache.put(part(1, 500), b"1" * 500)
    cache.put(part(2, 5000), b"2" * 5000)
    assert cache.get(part(1, 500)) == b"1" * 500
    assert cache.get(part(2, 5000)) is None


def test_other_files_in_the_folder_are_never_removed(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"x" * 10_000)
    cache = DiskCache(tmp_path, 5000)
    for number in range(50):
        cache.put(part(number, 400), b"n" * 400)
    assert (tmp_path / "mine.txt").stat().st_size == 10_000
    assert sum(path.stat().st_size for path in copies(tmp_path / "objects")) <= 5000


def _fill(folder: Path, first: int, wrong: "multiprocessing.Queue[int]") -> None:
    cache = DiskCache(folder, 50_000)
    for number in range(300):
        one = (first + number * 7) % 100
        found = cache.get(part(one))
        if found not in (None, bytes([one]) * 1000):
            wrong.put(one)
        if found is None:
            cache.put(part(one), bytes([one]) * 1000)


def test_processes_that_write_and_remove_at_the_same_time_read_whole_copies(tmp_path):
    fork = multiprocessing.get_context("fork")
    wrong: multiprocessing.Queue[int] = fork.Queue()
    processes = [fork.Process(target=_fill, args=(tmp_path, 13 * k, wrong)) for k in range(4)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == [0] * 4
    assert wrong.empty()
    assert sum(path.stat().st_size for path in copies(tmp_path)) <= 1.08 * 50_000
    assert Counter(path.name.startswith(".tmp") for path in copies(tmp_path))[True] == 0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, photos, site, plan, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOCO_REMOTE_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("MOCO_REMOTE_CACHE_SIZE", "1G")
    assert np.array_equal(open_images(f"{site}/photos").read(3), open_images(photos).read(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--cache-size", "many"], "expected a size such as 500M"), (["--cache", "s3://b/c"], "a path on this machine")],
)
def test_settings_that_cannot_be_used_are_refused(photos, tmp_path, options, message):
    done = CliRunner().invoke(app, ["pretrain", str(photos), "--out", str(tmp_path / "run"), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(("name", "value"), [("MOCO_REMOTE_CACHE_SIZE", "x"), ("MOCO_REMOTE_PATIENCE", "-1")])
def test_wrong_values_in_the_environment_are_refused(site, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"expect(ed|s)"):
        open_images(f"{site}/photos")
