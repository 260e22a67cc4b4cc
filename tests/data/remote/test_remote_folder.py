"""Folders and lists of a web server, or of fsspec's memory, are the same images as on a disk."""

import io
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
from PIL import Image

from moco.data.loader.loader import eval_batches
from moco.data.sources.images import DataError, Subset
from moco.data.sources.open import open_images
from moco.data.sources.split import split_sources
from tests.data.loader.loading import CPU, DATA, loader, same
from tests.data.remote.servers import web_server


def assert_same_images(one, other) -> None:
    assert list(one.names) == list(other.names)
    assert one.sizes.tolist() == other.sizes.tolist()
    assert list(one.classes) == list(other.classes)
    assert (one.labels is None) == (other.labels is None)
    assert one.labels is None or one.labels.tolist() == other.labels.tolist()
    assert all(np.array_equal(one.read(i), other.read(i)) for i in range(len(one)))


def in_memory(folder: Path, name: str) -> str:
    """The URL of a copy of `folder` in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            memory.pipe(f"/{name}/{path.relative_to(folder)}", path.read_bytes())
    return f"memory://{name}"


def add_odd_files(folder: Path) -> None:
    picture = next(folder.rglob("*.png")).read_bytes()
    for name in ("b c/.hidden.png", "b c/@eaDir/thumb.png", "ä/100% #1?.png", "ä/Z.PNG", "ä/notes.txt", "ä/a/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture)


def test_a_folder_of_a_web_server_is_the_same_as_on_disk(photos, site):
    add_odd_files(photos)
    assert_same_images(open_images(f"{site}/photos"), open_images(photos))


def test_a_folder_in_memory_is_the_same_as_on_disk(photos):
    add_odd_files(photos)
    images = open_images(in_memory(photos, "same"))
    assert_same_images(images, open_images(photos))
    assert dict(images.skipped.counts) == {"hidden": 1, "system folder": 1, ".txt file": 1}


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "processes": True}, {"workers": 0}], ids=str)
def test_mini_batches_from_a_web_server_are_those_from_the_disk(photos, site, options):
    made = list(loader(open_images(f"{site}/photos"), **options))
    assert same(made, list(loader(open_images(photos))))


def test_processes_read_what_the_main_process_has_opened_before(photos, site):
    images = open_images(f"{site}/photos")
    images.read(0)  # fsspec's thread is there before the fork
    images.prefetch(range(8))
    assert same(list(loader(images, workers=2, processes=True)), list(loader(open_images(photos))))


def test_evaluation_reads_each_image_in_order(photos, site):
    images = Subset(open_images(f"{site}/photos"), range(20, -1, -1))
    batches = list(eval_batches(images, DATA, batch_size=4, workers=2, device=CPU))
    assert [i for _, ids in batches for i in ids.tolist()] == list(range(21))
    local = eval_batches(Subset(open_images(photos), range(20, -1, -1)), DATA, batch_size=4, workers=0, device=CPU)
    assert all((x == y).all() for (x, _), (y, _) in zip(batches, local, strict=True))


def test_a_list_names_paths_from_its_own_folder_on(photos, site):
    names = ["ä/0003.png", "b c/0001.png", "../photos/ä/0000.png"]
    (photos / "list.tsv").write_text("".join(f"{name}\t{name[0]}\n" for name in names))
    assert_same_images(open_images(f"{site}/photos/list.tsv"), open_images(photos / "list.tsv"))


@pytest.mark.parametrize("remote", [True, False], ids=["remote list", "list on disk"])
def test_a_list_names_urls(photos, site, remote):
    paths = ["ä/0003.png", "b c/0001.png"]
    (photos / "list.txt").write_text("".join(f"{site}/photos/{quote(path)}\n" for path in paths))
    images = open_images(f"{site}/photos/list.txt" if remote else photos / "list.txt")
    local = open_images(photos)
    assert [(images.read(i) == local.read(local.names.index(path))).all() for i, path in enumerate(paths)] == [True] * 2


def test_missing_images_of_a_list_are_named(photos, site):
    (photos / "list.txt").write_text("ä/0003.png\nä/gone.png\n")
    with pytest.raises(DataError, match=r"1 of 2 images listed in http://\S+ are missing: http://\S+gone.png"):
        open_images(f"{site}/photos/list.txt")


@pytest.mark.parametrize("line", ["file:///etc/hostname", "s3://private/a.png", "memory://a.png", "local://a.png"])
def test_a_list_of_a_web_server_names_no_other_kind_of_place(photos, site, line):
    (photos / "list.txt").write_text(f"{site}/photos/a.png\n{line}\n")
    with pytest.raises(DataError, match=r"the URLs in this list may begin with http://, https://$"):
        open_images(f"{site}/photos/list.txt")


def test_a_path_in_a_list_does_not_leave_its_host(photos, site, plan):
    (photos / "list.txt").write_text("../../../../../../etc/passwd.png\n")
    with pytest.raises(DataError, match="are missing"):
        open_images(f"{site}/photos/list.txt")
    assert plan.asked["HEAD /etc/passwd.png"] == 1  # of the server, which has no such file


def test_several_folders_are_named_as_on_disk(photos, site):
    folders = ["b c", "ä"]
    assert_same_images(
        open_images([f"{site}/photos/{quote(one)}" for one in folders]), open_images([photos / one for one in folders])
    )


def test_training_and_test_folders_are_found(photos, site):
    (photos / "train").mkdir()
    (photos / "val").mkdir()
    for name in ("b c", "ä"):
        (photos / name).rename(photos / "train" / name)
        (photos / "val" / name).mkdir()
        (photos / "train" / name / "0000.png").rename(photos / "val" / name / "new.png")
    remote, local = split_sources(f"{site}/photos"), split_sources(str(photos))
    assert_same_images(remote.train, local.train)
    assert_same_images(remote.test, local.test)


def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path, photos, site):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (4, 4)).save(elsewhere / "x.png")
    with web_server(elsewhere) as other:
        links = [f"{other}/x.png", "/photos/ä/0000.png", "../photos/ä/0001.png", "mine.png", "mine.png?size=2"]
        page = "".join(f'<a href="{link}">' for link in links)
        (photos.parent / "page").mkdir()
        (photos.parent / "page" / "index.html").write_text(page)
        Image.new("RGB", (4, 4)).save(photos.parent / "page" / "mine.png")
        assert list(open_images(f"{site}/page").names) == ["mine.png"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{site}/nothing", "does not exist"),
        ("{site}/empty", r"no images in http://\S+/empty: found no objects at all"),
        ("nfs://host/a", r"nfs://host/a: URLs that are read begin with http://"),
        ("file:///a/b", "give its path, without file://"),
        (["{site}/photos", "/tmp"], "expected URLs only, or paths only; /tmp is a path"),
        (["{site}/photos", "memory://a"], "expected URLs of one store, got http, memory"),
        (["{site}/photos", "{site}/photos/%C3%A4"], "its images would count twice"),
        ("{site}/photos?x=1", "a folder's URL cannot have a query"),
        ("{site}/empty/x.tar", "does not exist"),
        ("{site}/empty/x.txt", "does not exist"),
    ],
)
def test_data_that_cannot_be_used_is_explained(photos, site, data, message):
    (photos.parent / "empty").mkdir()
    given = [one.format(site=site) for one in data] if isinstance(data, list) else data.format(site=site)
    with pytest.raises(DataError, match=message):
        open_images(given)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("moco.data.remote.urls").data.remote.urls.PACKAGES, "s3", "no_such_package")
    monkeypatch.setattr("moco.data.remote.urls.IN_EXTRA", ("no_such_package",))
    with pytest.raises(DataError, match=r'^s3:// needs the package no_such_package: pip install "\.\[remote\]"'):
        open_images("s3://bucket/photos")


def test_encoded_pixels_are_those_of_the_server(photos, site):
    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(file, "PNG")
    (photos / "ä" / "0000.png").write_bytes(file.getvalue())
    images = open_images(f"{site}/photos")
    assert images.read(images.names.index("ä/0000.png")).ravel().tolist() == list(range(48))
