"""Images in tar files: their index, names and labels, and what damage costs."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moco.data.decode.decode import BadImage
from moco.data.shards import index as indexes
from moco.data.shards.index import INDEX_FOLDER
from moco.data.shards.scan_tar import scan_tar
from moco.data.shards.shards import Shards, find_shards
from moco.data.sources.images import DataError
from moco.data.sources.open import open_images
from tests.data.shards.sample_tars import png, write_tar


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_of_any_kind_of_tar_file_are_read_in_place(tmp_path, kind):
    long = "d/" * 60 + "image.png" if kind != tarfile.USTAR_FORMAT else "image.png"
    members = [("a.png", png(1)), ("readme.txt", b"hello"), (long, png(2)), ("b.PNG", png(3))]
    shards = Shards([write_tar(tmp_path / "s.tar", members, kind=kind)])
    assert list(shards.names) == ["s/a.png", f"s/{long}", "s/b.PNG"]
    for index, value in enumerate([1, 2, 3]):
        assert np.array_equal(shards.read(index), decoded(png(value)))
        assert shards.read_bytes(index) == png(value)
    assert shards.sizes.tolist() == [len(png(value)) for value in (1, 2, 3)]
    assert shards.mtimes.tolist() == [1_600_000_000 * 10**9] * 3
    assert shards.labels is None


def test_labels_are_those_of_cls_and_json_files_or_of_folders(tmp_path):
    cls = [("0.png", png(0)), ("0.cls", b"7\n"), ("1.cls", b"3"), ("1.jpg", png(1))]
    shards = Shards([write_tar(tmp_path / "a" / "s.tar", cls)])
    assert (list(shards.classes), shards.labels.tolist()) == (["3", "7"], [1, 0])
    facts = [("0.png", png(0)), ("0.json", b'{"label": "cat"}'), ("1.png", png(1)), ("1.json", b'{"class": "dog"}')]
    shards = Shards([write_tar(tmp_path / "b" / "s.tar", facts)])
    assert (list(shards.classes), shards.labels.tolist()) == (["cat", "dog"], [0, 1])
    folders = [("./cat/0.png", png(0)), ("./dog/0.png", png(1)), ("./dog/1.png", png(2))]
    shards = Shards([write_tar(tmp_path / "c" / "s.tar", folders)])
    assert (list(shards.classes), shards.labels.tolist()) == (["cat", "dog"], [0, 1, 1])
    some = [("0.png", png(0)), ("0.cls", b"1"), ("1.png", png(1))]
    assert Shards([write_tar(tmp_path / "d" / "s.tar", some)]).labels is None


def test_damaged_json_is_no_label_and_no_error(tmp_path):
    notes = [b"{", b"[" * 100_000, b'{"label": {"x": 1}}', b"\xff", b'"cat"', b'{"moco_pack": 1, "name": 5}']
    members = [pair for i, note in enumerate(notes) for pair in ((f"{i}.png", png(i)), (f"{i}.json", note))]
    shards = Shards([write_tar(tmp_path / "s.tar", members)])
    assert len(shards) == len(notes)
    assert shards.labels is None


def test_the_index_is_built_once_and_again_when_a_shard_has_changed(tmp_path):
    path, lines = write_tar(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(2))]), []
    Shards([path], report=lines.append)
    assert len(lines) == 1
    Shards([path], report=lines.append)
    assert len(lines) == 1
    write_tar(path, [("a.png", png(1)), ("c.png", png(3)), ("d.png", png(4))])
    assert list(Shards([path], report=lines.append).names) == ["s/a.png", "s/c.png", "s/d.png"]
    assert len(lines) == 2


@pytest.mark.parametrize("file", ["shards.json", "samples.npy", "names.bin"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_index_is_built_again(tmp_path, file, content):
    path = write_tar(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(2))])
    Shards([path])
    if content is None:
        (tmp_path / INDEX_FOLDER / file).unlink()
    else:
        (tmp_path / INDEX_FOLDER / file).write_bytes(content)
    shards = Shards([path])
    assert list(shards.names) == ["s/a.png", "s/b.png"]
    assert np.array_equal(shards.read(1), decoded(png(2)))


def test_where_nothing_can_be_written_the_index_is_in_the_cache(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "data" / "s.tar", [("a.png", png(1))])
    (tmp_path / "data" / INDEX_FOLDER).mkdir()  # a folder of the user's: it is not replaced
    (tmp_path / "data" / INDEX_FOLDER / "mine.txt").write_text("mine")
    lines = []
    Shards([path], report=lines.append)
    Shards([path], report=lines.append)
    assert len(lines) == 1
    assert (tmp_path / "data" / INDEX_FOLDER / "mine.txt").read_text() == "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert len(Shards([path])) == 1  # in memory


def test_a_damaged_header_costs_its_own_image_only(tmp_path):
    path = write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i, side=40)) for i in range(5)])
    place = scan_tar(path).members[2].offset
    content = bytearray(path.read_bytes())
    content[place - 512 : place - 400] = b"\xaa" * 112
    path.write_bytes(bytes(content))
    shards = Shards([path])
    assert list(shards.names) == ["s/0.png", "s/1.png", "s/3.png", "s/4.png"]
    assert np.array_equal(shards.read(2), decoded(png(3, side=40)))
    assert shards.index.damaged == 1
    assert "bytes from" in shards.index.damage[0]


def test_damaged_pixels_are_a_bad_image_and_the_others_are_whole(tmp_path):
    path = write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i, side=40)) for i in range(3)])
    content, place = bytearray(path.read_bytes()), scan_tar(path).members[1].offset
    content[place + 100 : place + 400] = bytes(300)
    path.write_bytes(bytes(content))
    shards = Shards([path])
    with pytest.raises(BadImage) as error:
        shards.read(1)
    assert error.value.name == "s/1.png"
    for index in (0, 2):
        assert np.array_equal(shards.read(index), decoded(png(index, side=40)))


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.8])
def test_a_tar_file_that_was_cut_short_keeps_what_is_whole(tmp_path, kept):
    path = write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i, side=40)) for i in range(10)])
    places = scan_tar(path).members
    length = int(places[-1].offset * kept)
    os.truncate(path, length)
    shards = Shards([path])
    whole = [member for member in places if member.offset + member.size <= length]
    assert len(shards) == len(whole)
    assert np.array_equal(shards.read(len(whole) - 1), decoded(png(len(whole) - 1, side=40)))
    assert shards.index.damaged == 1


def test_a_shard_that_is_cut_short_later_gives_bad_images(tmp_path):
    path = write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i)) for i in range(3)])
    shards = Shards([path])
    os.truncate(path, 1000)
    with pytest.raises(BadImage, match="was cut short"):
        shards.read(2)


def test_concatenated_tar_files_are_read_to_the_end(tmp_path):
    first, second = (write_tar(tmp_path / f"{i}.tar", [(f"{i}.png", png(i))]) for i in range(2))
    both = tmp_path / "both" / "s.tar"
    both.parent.mkdir()
    both.write_bytes(first.read_bytes() + second.read_bytes())
    shards = Shards([both])
    assert list(shards.names) == ["s/0.png", "s/1.png"]
    assert shards.index.damaged == 0


def compressed(path: Path, how: str) -> Path:
    with tarfile.open(path, f"w:{how}") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(png(1))
        archive.addfile(info, io.BytesIO(png(1)))
    return path


@pytest.mark.parametrize("how", ["gz", "bz2", "xz"])
def test_compressed_tar_files_are_refused_with_what_to_do(tmp_path, how):
    with pytest.raises(DataError, match="decompress it first"):
        Shards([compressed(tmp_path / "s.tar", how)])


@pytest.mark.parametrize("content", [b"", b"no tar file", bytes(10240), b"\x89PNG\r\n\x1a\n" + bytes(2000)])
def test_what_is_no_tar_file_is_refused(tmp_path, content):
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    with pytest.raises(DataError):
        open_images(str(path))


def test_a_folder_of_tar_files_is_shards_and_one_with_images_is_not(tmp_path):
    for name in ("b.tar", "a.tar"):
        write_tar(tmp_path / "data" / name, [(f"{name}.png", png(1))])
    (tmp_path / "data" / "notes.txt").write_text("notes")
    assert [one.name for one in find_shards(tmp_path / "data")] == ["a.tar", "b.tar"]
    assert isinstance(open_images(str(tmp_path / "data")), Shards)
    assert isinstance(open_images([str(tmp_path / "data" / "b.tar")]), Shards)
    (tmp_path / "data" / "image.png").write_bytes(png(2))
    assert find_shards(tmp_path / "data") == []
    assert list(open_images(str(tmp_path / "data")).names) == ["image.png"]


def test_shards_and_folders_are_not_mixed(tmp_path):
    write_tar(tmp_path / "tars" / "a.tar", [("0.png", png(1))])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "image.png").write_bytes(png(2))
    with pytest.raises(DataError, match="is no shard"):
        open_images([str(tmp_path / "tars"), str(tmp_path / "folder")])
    with pytest.raises(DataError, match="given twice"):
        open_images([str(tmp_path / "tars"), str(tmp_path / "tars" / "a.tar")])


def test_another_process_opens_the_index_itself(tmp_path):
    shards = Shards([write_tar(tmp_path / "s.tar", [(f"{i}.png", png(i)) for i in range(50)])])
    content = pickle.dumps(shards)
    assert len(content) < 1000
    assert list(pickle.loads(content).names) == list(shards.names)


def test_an_index_built_by_processes_is_that_of_one(tmp_path):
    """In processes of their own, which have no threads: this one must not fork."""
    for number in range(5):
        members = [(f"{label}/{number}{i}.png", png(i)) for i, label in enumerate("cab")]
        write_tar(tmp_path / "shards" / f"{number}.tar", [*members[number % 3 :], ("x.txt", b"")])
    code = """if True:
    import sys
    from pathlib import Path
    from moco.data.sources import forked_map
    from moco.data.shards.shards import Shards
    forked_map.cores = lambda: int(sys.argv[1])
    shards = Shards(sorted(Path(sys.argv[2]).glob("*.tar")))
    print(shards.index.records.tolist(), list(shards.names), shards.classes, shards.counts.tolist(), shards.labels)
    """
    found = []
    for processes in (1, 4):
        done = subprocess.run(
            [sys.executable, "-c", code, str(processes), tmp_path / "shards"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        found.append(done.stdout)
        shutil.rmtree(tmp_path / "shards" / INDEX_FOLDER)
    assert found[0] == found[1]
    shards = Shards(sorted((tmp_path / "shards").glob("*.tar")))
    assert shards.counts.tolist() == [3, 2, 1, 3, 2]
    assert [shards.classes[label] for label in shards.labels] == list("cabab") + list("bcabab")
    assert shards.index.records["shard"].tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4]


def test_a_large_index_is_not_read_ahead(tmp_path, monkeypatch):
    advised = []
    monkeypatch.setattr(indexes, "_expect_jumps", lambda mapped: advised.append(mapped.nbytes))
    write_tar(tmp_path / "s.tar", [("0.png", png(0)), ("1.png", png(1))])
    Shards([tmp_path / "s.tar"])
    assert advised == []
    monkeypatch.setattr(indexes, "READ_AHEAD", 2 * indexes.RECORD.itemsize - 1)
    Shards([tmp_path / "s.tar"])
    assert advised == [2 * indexes.RECORD.itemsize]
    monkeypatch.undo()
    indexes._expect_jumps(Shards([tmp_path / "s.tar"]).index.records)
    assert np.array_equal(Shards([tmp_path / "s.tar"]).read(1), decoded(png(1)))
