"""Shards on a web server: the images of the folder they were packed from, read by ranges."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from moco.data.shards.index import RECORD
from moco.data.shards.pack import pack
from moco.data.sources.images import DataError
from moco.data.sources.manifest import manifest_of
from moco.data.sources.open import open_images
from tests.data.loader.loading import loader, no_limit, same
from tests.data.remote.servers import Handler, Plan
from tests.data.shards.sample_tars import png, write_tar


@pytest.fixture
def shards(photos) -> Path:
    folder = photos.parent / "shards"
    pack(open_images(photos), folder, shard_size=10)
    return folder


def asked_for(plan: Plan, ending: str) -> int:
    return sum(count for what, count in plan.asked.items() if what.startswith("GET") and what.endswith(ending))


def assert_packed(images, photos: Path) -> None:
    local = open_images(photos)
    assert manifest_of(images).fingerprint == manifest_of(local).fingerprint
    assert images.labels.tolist() == local.labels.tolist()
    assert list(images.classes) == list(local.classes)
    assert all(np.array_equal(images.read(i), local.read(i)) for i in range(len(local)))


def test_shards_with_their_index_are_the_folder_they_were_packed_from(photos, shards, site, plan):
    images = open_images(f"{site}/shards")
    assert asked_for(plan, ".tar") == 3  # a header of each
    assert_packed(images, photos)


def test_shards_without_an_index_are_read_once_and_the_index_is_kept(photos, shards, site, plan):
    shutil.rmtree(shards / ".moco-index")
    assert_packed(open_images(f"{site}/shards"), photos)
    once = asked_for(plan, ".tar") - 24
    assert_packed(open_images(f"{site}/shards"), photos)
    assert asked_for(plan, ".tar") - once == 2 * 24  # the index is not made again
    pieces = [range.removeprefix("bytes=").split("-") for range in plan.ranges[:once]]
    assert sum(int(last) - int(first) + 1 for first, last in pieces) <= 1.1 * sum(
        one.stat().st_size for one in shards.glob("*.tar")
    )


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_mini_batches_of_remote_shards_are_those_of_the_folder(photos, shards, site, processes):
    made = list(loader(open_images(f"{site}/shards"), workers=2, processes=processes))
    assert same(made, list(loader(open_images(photos))))


def test_shards_of_other_tools_are_the_same_as_on_disk(photos, site):
    members = [(f"{k % 2}/{k:03d}.{end}", png(k) if end == "png" else b"5") for k in range(6) for end in ("png", "cls")]
    write_tar(photos.parent / "web" / "a.tar", members)
    write_tar(photos.parent / "web" / "b.tar", [(f"x/{name}", content) for name, content in members[:4]])
    remote = open_images([f"{site}/web/a.tar", f"{site}/web/b.tar"])
    local = open_images(photos.parent / "web")
    assert list(remote.names) == list(local.names)
    assert remote.labels is None is local.labels
    assert all(np.array_equal(remote.read(i), local.read(i)) for i in range(8))


def test_a_shard_that_has_changed_is_indexed_again(photos, shards, site, plan):
    plan.etags = True  # dates have seconds only
    open_images(f"{site}/shards")
    (photos / "ä" / "0000.png").write_bytes(png(77, side=30))
    shutil.rmtree(shards)
    pack(open_images(photos), shards, shard_size=10)
    assert_packed(open_images(f"{site}/shards"), photos)


def _wrong_offset(records: np.ndarray, about: dict) -> None:
    records["offset"][9] += 512


def _beyond_the_end(records: np.ndarray, about: dict) -> None:
    records["size"][3] = 2**29


def _no_such_shard(records: np.ndarray, about: dict) -> None:
    records["shard"][3] = 7


def _no_such_class(records: np.ndarray, about: dict) -> None:
    records["label"][3] = 9


def _other_sizes(records: np.ndarray, about: dict) -> None:
    about["shards"][1][1] += 1


@pytest.mark.parametrize("change", [_wrong_offset, _beyond_the_end, _no_such_shard, _no_such_class, _other_sizes])
def test_an_index_beside_shards_that_does_not_fit_them_is_not_believed(photos, shards, site, change):
    place = shards / ".moco-index"
    records, about = np.load(place / "samples.npy").astype(RECORD), json.loads((place / "shards.json").read_text())
    change(records, about)
    np.save(place / "samples.npy", records)
    (place / "shards.json").write_text(json.dumps(about))
    assert_packed(open_images(f"{site}/shards"), photos)


def test_a_damaged_shard_loses_only_its_damaged_image(photos, shards, site):
    local = open_images(shards)
    place = int(local.index.records["offset"][4])
    path = shards / "000000.tar"
    content = bytearray(path.read_bytes())
    content[place - 512 : place] = b"\xff" * 512
    path.write_bytes(bytes(content))
    shutil.rmtree(shards / ".moco-index")
    remote = open_images(f"{site}/shards")
    left = [name for i, name in enumerate(local.names) if i != 4]
    assert list(remote.names) == left
    assert np.array_equal(remote.read(4), local.read(5))


def test_a_server_without_ranges_is_refused_for_shards(shards, site, plan):
    def whole(handler: Handler) -> bool:
        del handler.headers["Range"]
        return False

    plan.fault = whole
    with pytest.raises(DataError, match=r"sends whole files where a part is asked for"):
        open_images(f"{site}/shards")


def test_a_shard_that_is_lost_makes_its_images_bad(photos, shards, site):
    images = open_images(f"{site}/shards")
    (shards / "000002.tar").unlink()
    quarantine = no_limit(images)
    list(loader(images, workers=2, quarantine=quarantine, steps=range(3)))
    assert sorted(quarantine.bad) == sorted(images.names[20:])


def test_shards_and_folders_are_not_mixed(photos, shards, site):
    with pytest.raises(DataError, match=r"expected shards \(tar files\) only"):
        open_images([f"{site}/shards", f"{site}/photos"])


def test_a_remote_folder_is_packed_as_one_on_disk(tmp_path, photos, site):
    images = open_images(f"{site}/photos")
    pack(images, tmp_path / "here")
    packed = open_images(tmp_path / "here")
    assert list(packed.names) == list(images.names)
    assert packed.mtimes.tolist() == images.mtimes.tolist()
    assert packed.read_bytes(3) == (photos / images.names[3]).read_bytes()
