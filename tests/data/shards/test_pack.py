"""Writing shards: the same images, the same batches, continued after an interruption."""

import io
import json
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco import pretrain
from moco.cli import app
from moco.data.loader.shrunk import shrink
from moco.data.shards import pack as packing
from moco.data.shards.pack import pack
from moco.data.shards.shards import Shards
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError
from moco.data.sources.manifest import manifest_of
from moco.data.sources.open import open_images
from moco.train.stop_on_signals import Stopped
from tests.data.loader.loading import loader, same
from tests.train.helpers import StopAt, assert_same, final_state


@pytest.fixture
def images(tmp_path):
    return find_images(make_pictures(tmp_path / "pictures", 30, side=20, classes=3))


def test_the_images_come_back_byte_by_byte_with_names_labels_sizes_and_times(images, tmp_path):
    done = pack(images, tmp_path / "shards", shard_size=8, workers=2)
    assert [one.name for one in done.shards] == ["000000.tar", "000001.tar", "000002.tar", "000003.tar"]
    shards = open_images(str(tmp_path / "shards"))
    assert list(shards.names) == list(images.names)
    assert shards.labels.tolist() == images.labels.tolist()
    assert list(shards.classes) == list(images.classes)
    assert manifest_of(shards).fingerprint == manifest_of(images).fingerprint
    for index in range(len(images)):
        assert shards.read_bytes(index) == Path(images.path(index)).read_bytes()
        assert np.array_equal(shards.read(index), images.read(index))


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "processes": True}])
def test_the_batches_of_a_folder_and_of_its_shards_are_the_same(images, tmp_path, options):
    pack(images, tmp_path / "shards", shard_size=7)
    shards = open_images(str(tmp_path / "shards"))
    assert same(list(loader(shards, **options)), list(loader(images)))


def test_a_run_on_a_folder_continues_on_its_shards(tmp_path, pictures, tiny):
    pack(find_images(pictures), tmp_path / "shards", shard_size=16)
    pretrain(pictures, tmp_path / "a", recipe=tiny)
    pretrain(tmp_path / "shards", tmp_path / "b", recipe=tiny)
    assert_same(final_state(tmp_path / "b"), final_state(tmp_path / "a"))


def test_a_run_that_was_stopped_on_a_folder_resumes_on_its_shards(tmp_path, pictures, tiny):
    pack(find_images(pictures), tmp_path / "shards", shard_size=16)
    pretrain(pictures, tmp_path / "a", recipe=tiny)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "b", recipe=tiny, reporter=StopAt(4))
    pretrain(tmp_path / "shards", tmp_path / "b", recipe=tiny)
    assert_same(final_state(tmp_path / "b"), final_state(tmp_path / "a"))


def test_webdataset_finds_image_label_and_facts_of_each_sample(images, tmp_path):
    """By the rules of WebDataset: files with one key are a sample; `.cls` is a number, `.json` is JSON."""
    pack(images, tmp_path / "shards", shard_size=30)
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
        for member in archive:
            key, _, ending = member.name.partition(".")
            samples.setdefault(key, {})[ending] = archive.extractfile(member).read()
    assert len(samples) == 30
    for index, (key, sample) in enumerate(samples.items()):
        assert int(key) == index
        assert int(sample["cls"]) == images.labels[index]
        facts = json.loads(sample["json"])
        assert (facts["name"], facts["label"]) == (images.names[index], images.classes[images.labels[index]])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample["png"]))), images.read(index))


def test_larger_images_are_shrunk_and_the_others_copied(tmp_path):
    make_pictures(tmp_path / "data", 4, side=100)
    make_pictures(tmp_path / "data" / "small", 4, side=20)
    images = find_images(tmp_path / "data")
    pack(images, tmp_path / "shards", resize=32, quality=95)
    shards = open_images(str(tmp_path / "shards"))
    for index, name in enumerate(images.names):
        if name.startswith("small/"):
            assert shards.read_bytes(index) == Path(images.path(index)).read_bytes()
        else:
            expected = shrink(images.read(index), 32).astype(float)
            assert shards.read(index).shape == expected.shape
            assert np.abs(shards.read(index) - expected).mean() < 4  # of 255: JPEG of noise


def test_bad_images_are_left_out_and_listed(images, tmp_path):
    for index in (3, 7):
        Path(images.path(index)).write_bytes(b"broken")
    done = pack(images, tmp_path / "shards", resize=16)
    assert sorted(done.bad) == sorted(images.names[index] for index in (3, 7))
    assert done.images == 28
    assert list(open_images(str(tmp_path / "shards")).names) == [
        name for index, name in enumerate(images.names) if index not in (3, 7)
    ]


def test_an_interrupted_call_is_continued(images, tmp_path, monkeypatch):
    written, write = [], packing._write_shard

    def stopping(job, path, *rest):
        if len(written) == 2:
            raise OSError("the disk is full")
        written.append(path.name)
        return write(job, path, *rest)

    monkeypatch.setattr(packing, "_write_shard", stopping)
    with pytest.raises(OSError, match="the disk is full"):
        pack(images, tmp_path / "shards", shard_size=8)
    first = {name: (tmp_path / "shards" / name).stat().st_mtime_ns for name in written}
    (tmp_path / "shards" / ".tmp-1-00000000ffffffff").write_bytes(b"of the user")
    written.clear()
    monkeypatch.setattr(packing, "_write_shard", lambda *a: written.append(a[1].name) or write(*a))
    done = pack(images, tmp_path / "shards", shard_size=8)
    assert (done.images, done.reused) == (30, 2)
    assert sorted(written) == ["000002.tar", "000003.tar"]
    assert {name: (tmp_path / "shards" / name).stat().st_mtime_ns for name in first} == first
    assert (tmp_path / "shards" / ".tmp-1-00000000ffffffff").exists()
    other = pack(images, tmp_path / "whole", shard_size=8)
    for one, two in zip(done.shards, other.shards, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_ctrl_c_ends_within_a_shard_and_progress_counts_images(images, tmp_path, monkeypatch):
    counts, read, content_of = [], [], packing._content_of

    def slow(*args):
        read.append(args[1])
        time.sleep(0.1)
        return content_of(*args)

    def interrupt(count):
        counts.append(count)
        if count:
            raise KeyboardInterrupt

    monkeypatch.setattr(packing, "EVERY", 0.02)
    monkeypatch.setattr(packing, "_content_of", slow)
    with pytest.raises(KeyboardInterrupt):
        pack(images, tmp_path / "shards", progress=interrupt)
    assert 0 < counts[-1] < 10
    assert len(read) < 10
    assert [one.name for one in (tmp_path / "shards").iterdir()] == ["pack.json"]


def test_shards_of_an_interrupted_call_are_refused(images, tmp_path, monkeypatch):
    pack(images, tmp_path / "shards", shard_size=8)
    facts = json.loads((tmp_path / "shards" / "pack.json").read_text())
    del facts["shards"]["000003.tar"]
    (tmp_path / "shards" / "pack.json").write_text(json.dumps(facts))
    (tmp_path / "shards" / "000003.tar").unlink()
    with pytest.raises(DataError, match="has 3 of 4 shards: moco pack was interrupted"):
        open_images(str(tmp_path / "shards"))
    assert len(open_images(str(tmp_path / "shards" / "000000.tar"))) == 8
    pack(images, tmp_path / "shards", shard_size=8)
    assert len(open_images(str(tmp_path / "shards"))) == 30


def test_the_command_says_what_an_interruption_means_and_when_nothing_was_written(images, tmp_path, monkeypatch):
    command = ["pack", str(tmp_path / "pictures"), "--to", str(tmp_path / "shards")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert "nothing was written" in CliRunner().invoke(app, command).stderr

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "pack", interrupted)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    assert "Run the same command again to write the missing shards" in result.stderr


def test_a_shard_that_was_cut_short_is_written_again(images, tmp_path):
    done = pack(images, tmp_path / "shards", shard_size=8)
    whole = done.shards[1].read_bytes()
    done.shards[1].write_bytes(whole[:1000])
    assert pack(images, tmp_path / "shards", shard_size=8).reused == 3
    assert done.shards[1].read_bytes() == whole


def test_other_images_or_settings_are_refused_without_overwrite(images, tmp_path):
    pack(images, tmp_path / "shards", shard_size=8)
    before = (tmp_path / "shards" / "000000.tar").read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        pack(images, tmp_path / "shards", shard_size=10)
    assert (tmp_path / "shards" / "000000.tar").read_bytes() == before
    done = pack(images, tmp_path / "shards", shard_size=10, overwrite=True)
    assert len(done.shards) == 3
    assert sorted(path.name for path in (tmp_path / "shards").glob("*.tar")) == [one.name for one in done.shards]


@pytest.mark.parametrize("name", ["mine.txt", "000000.tar", "pack.json"])
def test_other_files_are_never_touched(images, tmp_path, name):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="give an empty folder"):
            pack(images, tmp_path / "shards", overwrite=overwrite)
    assert (tmp_path / "shards" / name).read_text() == "mine"


def test_a_folder_in_the_images_own_folder_is_refused(images, tmp_path):
    for to in (tmp_path / "pictures", tmp_path / "pictures" / "shards"):
        with pytest.raises(DataError, match="the images' own folder"):
            pack(images, to)
    assert not (tmp_path / "pictures" / "shards").exists()


def test_a_data_set_without_files_is_packed_without_loss(tmp_path):
    pixels = torch.randint(0, 256, (6, 3, 10, 12), dtype=torch.uint8)
    images = open_images(pixels.permute(0, 2, 3, 1).numpy())
    pack(images, tmp_path / "shards")
    shards = Shards(sorted((tmp_path / "shards").glob("*.tar")))
    assert list(shards.names) == list(images.names)
    for index in range(6):
        assert np.array_equal(shards.read(index), images.read(index))


def test_shards_are_packed_again_to_a_smaller_size(tmp_path):
    images = find_images(make_pictures(tmp_path / "data", 5, side=80))
    pack(images, tmp_path / "shards")
    pack(open_images(str(tmp_path / "shards")), tmp_path / "small", resize=40)
    small = open_images(str(tmp_path / "small"))
    assert list(small.names) == list(images.names)
    assert {min(small.read(index).shape[:2]) for index in range(5)} == {40}


def test_a_file_that_is_not_listed_is_kept_under_another_name_unless_it_is_the_shard_itself(images, tmp_path):
    pack(images, tmp_path / "shards", shard_size=8)
    facts = json.loads((tmp_path / "shards" / "pack.json").read_text())
    shards = {path.name: path.read_bytes() for path in (tmp_path / "shards").glob("*.tar")}
    for name in ("000000.tar", "000001.tar"):
        del facts["shards"][name]
    (tmp_path / "shards" / "pack.json").write_text(json.dumps(facts))
    (tmp_path / "shards" / "000000.tar").write_text("the user's own")
    pack(images, tmp_path / "shards", shard_size=8)
    left = {path.name: path.read_bytes() for path in (tmp_path / "shards").glob("*.tar*")}
    assert left == shards | {"000000.tar.other": b"the user's own"}
