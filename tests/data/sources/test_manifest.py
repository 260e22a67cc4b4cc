"""What the images of a run were, and what has become of them."""

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from sample_pictures import make_pictures

from moco.data.shards.pack import pack
from moco.data.sources import manifest as manifests
from moco.data.sources.folder import DataError, find_images
from moco.data.sources.manifest import (
    Manifest,
    changes_since,
    manifest_changes,
    manifest_of,
    read_manifest,
    write_manifest,
)
from moco.data.sources.open import open_images


def manifest(*rows: tuple[str, int, int]) -> Manifest:
    names, sizes, mtimes = zip(*rows, strict=True) if rows else ((), (), ())
    return Manifest(list(names), np.array(sizes, dtype=np.int64), np.array(mtimes, dtype=np.int64))


OLD = manifest(("a.png", 1, 10), ("b.png", 2, 20), ("c.png", 3, 30))


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.jsonl.gz"])
def test_a_written_manifest_is_read_back(tmp_path, name: str):
    odd = manifest(("a\tb\n.png", 1, 2**62), (os.fsdecode(b"caf\xe9.png"), 0, 0), ("😀\u202e", 2**40, -5))
    write_manifest(odd, tmp_path / name)
    back = read_manifest(tmp_path / name)
    assert list(back.names) == list(odd.names)
    assert back.sizes.tolist() == odd.sizes.tolist()
    assert back.mtimes.tolist() == odd.mtimes.tolist()
    assert back.fingerprint == odd.fingerprint


def test_a_manifest_of_a_folder_holds_name_size_and_time(tmp_path):
    folder = find_images(make_pictures(tmp_path / "data", 3))
    write_manifest(manifest_of(folder), tmp_path / "m.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    stats = [(tmp_path / "data" / name).stat() for name in folder.names]
    assert rows == [[n, s.st_size, s.st_mtime_ns] for n, s in zip(folder.names, stats, strict=True)]


def test_an_empty_manifest_is_read_back(tmp_path):
    write_manifest(manifest(), tmp_path / "m.jsonl")
    assert len(read_manifest(tmp_path / "m.jsonl").names) == 0


def test_a_manifest_has_the_same_bytes_whenever_it_is_written(tmp_path):
    write_manifest(OLD, tmp_path / "1.gz")
    time.sleep(1.1)  # gzip would note the second
    write_manifest(OLD, tmp_path / "2.gz")
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()


def test_a_failed_write_leaves_the_old_manifest(tmp_path, monkeypatch):
    write_manifest(OLD, tmp_path / "m.jsonl")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_manifest(manifest(("new.png", 1, 1)), tmp_path / "m.jsonl")
    assert manifest_changes(read_manifest(tmp_path / "m.jsonl"), OLD) == []
    assert os.listdir(tmp_path) == ["m.jsonl"]


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        gzip.compress(b"not json\n", mtime=0),
        gzip.compress(b'["a.png", 1]\n', mtime=0),
        gzip.compress(b'["a.png", "x", 1]\n', mtime=0),
        gzip.compress(b'["a.png", 1, 99999999999999999999]\n', mtime=0),
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b'["a.png", 1, 1]\n', mtime=0)[:-9],
        gzip.compress(b'["a.png", 1, 1]\n', mtime=0)[:12] + b"\xff" * 20,
    ],
)
def test_a_damaged_manifest_is_an_error(tmp_path, data: bytes):
    (tmp_path / "m.gz").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path / "m.gz")
    with pytest.raises(DataError, match="damaged"):
        changes_since(tmp_path / "m.gz", OLD)


def test_the_same_images_have_no_changes():
    assert manifest_changes(OLD, manifest(("a.png", 1, 10), ("b.png", 2, 20), ("c.png", 3, 30))) == []


def test_a_manifest_of_the_same_images_is_not_even_parsed(tmp_path, monkeypatch):
    write_manifest(OLD, tmp_path / "m.gz")
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    assert changes_since(tmp_path / "m.gz", OLD) == []


def test_changes_since_a_stored_manifest_are_those_that_comparing_finds(tmp_path):
    write_manifest(OLD, tmp_path / "m.gz")
    new = manifest(("a.png", 1, 10), ("b.png", 2, 21), ("c.png", 3, 30))
    assert changes_since(tmp_path / "m.gz", new) == ["1 image was changed (in size or time of change): b.png."]


def test_a_stored_manifest_of_other_spacing_is_the_same(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b"".join(OLD.lines()).replace(b" ", b""))
    assert changes_since(tmp_path / "m.jsonl", OLD) == []


def test_added_removed_and_changed_images_are_reported():
    new = manifest(("a.png", 1, 10), ("b.png", 2, 21), ("d.png", 4, 40), ("e.png", 5, 50))
    assert manifest_changes(OLD, new) == [
        "2 images were added: d.png, e.png.",
        "1 image was removed: c.png.",
        "1 image was changed (in size or time of change): b.png.",
    ]


def test_a_changed_size_alone_is_a_change():
    assert "changed" in manifest_changes(OLD, manifest(("a.png", 7, 10), ("b.png", 2, 20), ("c.png", 3, 30)))[0]


def test_of_many_images_three_are_named():
    new = manifest(*((f"{i}.png", 1, 1) for i in range(12_000)))
    assert manifest_changes(manifest(), new) == ["12,000 images were added: 0.png, 1.png, 2.png and 11,997 more."]


def test_another_order_is_reported():
    (sentence,) = manifest_changes(OLD, manifest(("b.png", 2, 20), ("a.png", 1, 10), ("c.png", 3, 30)))
    assert "order" in sentence


def test_an_image_that_is_listed_twice_is_reported():
    (sentence,) = manifest_changes(
        OLD, manifest(("a.png", 1, 10), ("a.png", 1, 10), ("b.png", 2, 20), ("c.png", 3, 30))
    )
    assert "more or less often" in sentence


def test_names_are_printed_without_control_characters():
    assert all(sentence.isprintable() for sentence in manifest_changes(OLD, manifest(("\x1b[31m\n.png", 1, 1))))


def fingerprint(folder: Path) -> str:
    return manifest_of(find_images(folder)).fingerprint


def test_the_fingerprint_changes_with_any_file(tmp_path):
    make_pictures(tmp_path, 4)
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    os.utime(tmp_path / "0002.png", ns=(0, 0))
    touched = fingerprint(tmp_path)
    (tmp_path / "0003.png").rename(tmp_path / "0004.png")
    assert len({before, touched, fingerprint(tmp_path)}) == 3


def test_a_folder_that_is_moved_keeps_its_fingerprint(tmp_path):
    before = fingerprint(make_pictures(tmp_path / "here", 4))
    (tmp_path / "here").rename(tmp_path / "there")
    assert fingerprint(tmp_path / "there") == before


@pytest.mark.slow
def test_a_million_images_are_compared_in_seconds(tmp_path):
    n = 1_000_000
    one = Manifest([f"class{i % 1000}/{i}.jpg" for i in range(n)], np.arange(n), np.arange(n))
    other = Manifest(one.names, one.sizes, one.mtimes + (np.arange(n) == 5))
    start = time.process_time()
    write_manifest(one, tmp_path / "m.gz")
    assert manifest_changes(read_manifest(tmp_path / "m.gz"), other)[0].startswith("1 image was changed")
    assert time.process_time() - start < 40
    assert (tmp_path / "m.gz").stat().st_size < 30e6


def test_the_manifest_of_very_many_images_has_a_row_a_shard(tmp_path, monkeypatch):
    images = find_images(make_pictures(tmp_path / "data", 10))
    pack(images, tmp_path / "shards", shard_size=4)
    shards = open_images(tmp_path / "shards")
    of_images = manifest_of(shards)
    monkeypatch.setattr(manifests, "BY_SHARD", 9)
    now = manifest_of(shards)
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    assert (len(of_images.names), list(now.names)) == (10, ["000000.tar", "000001.tar", "000002.tar"])
    assert now.sizes.tolist() == [tar.stat().st_size for tar in tars]
    assert now.mtimes.tolist() == [tar.stat().st_mtime_ns for tar in tars]
    write_manifest(now, tmp_path / "m.gz")
    os.utime(tars[1], ns=(1, 1))
    changes = changes_since(tmp_path / "m.gz", manifest_of(shards))
    assert changes == ["1 shard was changed (in size or time of change): 000001.tar."]
    assert len(manifest_of(images).names) == 10
