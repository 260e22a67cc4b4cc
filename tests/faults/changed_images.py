"""I7 and I8: images that change between or during runs, are listed in any order, or are too few."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import Folder, find_images
from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.train.pretrain import pretrain
from tests.faults.forked_child import in_child
from tests.faults.killed_runs import RECIPE
from tests.faults.matrix import Fault, Tally

Change = Callable[[Path], Any]


def pictures(folder: Path, n: int = 32) -> Path:
    """`n` pictures of several sizes in two directories."""
    for i in range(n):
        place = folder / ("cats" if i % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:02d}.png", compress_level=0)
    return folder


def swapped(folder: Path) -> None:
    (folder / "dogs/00.png").rename(folder / "x")
    (folder / "dogs/06.png").rename(folder / "dogs/00.png")
    (folder / "x").rename(folder / "dogs/06.png")


def rewritten(folder: Path) -> None:
    """Replace the bytes by as many others."""
    data = (folder / "dogs/00.png").read_bytes()
    (folder / "dogs/00.png").write_bytes(data[:-20] + bytes(20))


def merged(folder: Path) -> None:
    for file in (folder / "dogs").iterdir():
        file.rename(folder / "cats" / file.name)
    (folder / "dogs").rmdir()


BETWEEN: dict[str, tuple[Change, str]] = {
    "one more": (lambda folder: shutil.copy(folder / "dogs/00.png", folder / "new.png"), "1 image was added: new.png"),
    "ten more": (lambda folder: pictures(folder, 42), "10 images were added"),
    "one less": (lambda folder: (folder / "dogs/00.png").unlink(), "1 image was removed: dogs/00.png"),
    "three less": (lambda folder: [(folder / f"dogs/0{i}.png").unlink() for i in (0, 2, 4)], "3 images were removed"),
    "another name": (lambda folder: (folder / "dogs/00.png").rename(folder / "dogs/x.png"), "was added: dogs/x.png"),
    "capitals": (lambda folder: (folder / "dogs/00.png").rename(folder / "dogs/00.PNG"), "was added: dogs/00.PNG"),
    "another ending": (lambda folder: (folder / "dogs/00.png").rename(folder / "dogs/00.txt"), "removed: dogs/00.png"),
    "another directory": (lambda folder: (folder / "dogs").rename(folder / "wolves"), "16 images were removed"),
    "moved": (lambda folder: (folder / "dogs/00.png").rename(folder / "cats/00.png"), "was added: cats/00.png"),
    "one directory": (merged, "16 images were added"),
    "rewritten": (rewritten, "1 image was changed (in size or time of change): dogs/00.png"),
    "cut": (lambda folder: os.truncate(folder / "dogs/00.png", 100), "1 image was changed"),
    "emptied": (lambda folder: os.truncate(folder / "dogs/00.png", 0), "1 image was changed"),
    "swapped": (swapped, "2 images were changed"),
    "replaced by a link": (
        lambda folder: ((folder / "dogs/00.png").unlink(), (folder / "dogs/00.png").symlink_to("02.png")),
        "1 image was changed",
    ),
    "replaced by a directory": (
        lambda folder: ((folder / "dogs/00.png").unlink(), (folder / "dogs/00.png").mkdir()), "1 image was removed",
    ),
    "hidden": (lambda folder: (folder / "dogs/00.png").rename(folder / "dogs/.00.png"), "1 image was removed"),
}  # fmt: skip
SAME: dict[str, Change] = {  # only times
    "touched": lambda folder: (folder / "dogs/00.png").touch(),
    "set back": lambda folder: os.utime(folder / "dogs/00.png", (1, 1)),
    "a copy": lambda folder: [os.utime(file, (1, 1)) for file in folder.rglob("*.png")],
}
DURING: dict[str, Callable[[str], Any]] = {
    "removed": os.unlink,
    "cut": lambda path: os.truncate(path, 100),
    "a directory": lambda path: (os.unlink(path), os.mkdir(path)),
    "a FIFO": lambda path: (os.unlink(path), os.mkfifo(path)),
    "another file": lambda path: Path(path).write_bytes(b"<html>404</html>"),
}
NOON = 1_700_000_000 * 10**9  # [ns] modification time of the pictures


def dated(folder: Path) -> None:
    """Set modification times that differ by one nanosecond."""
    for i, file in enumerate(sorted(folder.rglob("*.png"))):
        os.utime(file, ns=(NOON + 2 * i * 1000, NOON + 2 * i * 1000))


def run(images: Path, out: Path, **options: Any) -> bool:
    pretrain(images, out, recipe=RECIPE, workers=0, device="cpu", **options)
    return True


def contents(folder: Path) -> str:
    """A hash over all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        digest.update(str(file.relative_to(folder)).encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()


def refused(images: Path, out: Path, message: str) -> bool:
    """Whether resuming is refused with the message, and the run folder does not change."""
    before = contents(out / "checkpoints"), (out / "manifest.jsonl.gz").read_bytes()
    try:
        run(images, out)
    except DataError as error:
        same = before == (contents(out / "checkpoints"), (out / "manifest.jsonl.gz").read_bytes())
        return same and message in str(error) and "--accept-data-change" in str(error)
    return False


def resumed(images: Path, out: Path) -> bool:
    """Whether the run resumes without a word from the user, with the same encoder."""
    encoder = out / "encoder" / "model.safetensors"
    before = encoder.read_bytes()
    encoder.unlink()
    (out / "finished.json").unlink(missing_ok=True)
    run(images, out)
    return encoder.read_bytes() == before


def tolerated(images: Path, out: Path, change: Callable[[str], Any]) -> bool:
    """Whether a run finishes although an image is damaged before it is read, and skips only that image."""
    read, count = Folder.read, iter(range(10**9))

    def changing(self: Folder, index: int) -> np.ndarray:
        if next(count) == 4:
            change(self.path(index))
            names.append(self.names[index])
        return read(self, index)

    names: list[str] = []
    with mock.patch.object(Folder, "read", changing):
        run(images, out)
    return list(Quarantine(out / "bad_images.csv", None, 32).bad) == names


def changed(count: int, scratch: Path) -> Tally:
    """Change images between two runs, and during a run."""
    tally, whole, out = Tally(), pictures(scratch / "whole"), scratch / "out"
    dated(whole)
    if in_child(lambda: run(whole, out)) is None:
        raise RuntimeError("the undisturbed run failed")
    (out / "finished.json").unlink()  # as after a kill at the end
    tries = [lambda images, it=it: refused(images, out, it[1]) for it in BETWEEN.values()]
    tries += [lambda images: resumed(images, out)] * len(SAME)
    tries += [lambda images, it=it: tolerated(images, images / "../run", it) for it in DURING.values()]
    changes = [it[0] for it in BETWEEN.values()] + [*SAME.values()] + [lambda folder: None] * len(DURING)
    for number, (change, test) in enumerate(list(zip(changes, tries, strict=True))[:count]):
        images = scratch / f"{number}" / "images"
        shutil.copytree(whole, images)
        change(images)
        seen = in_child(lambda test=test, images=images: test(images))
        tally += seen is not None and seen.answer is True
        if seen is None or seen.answer is not True:
            print(f"change {number}: {seen}")
    return tally


class Shuffled:
    """The result of os.scandir in random order."""

    def __init__(self, entries: Any, rng: random.Random):
        self.entries, self.rng = entries, rng

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        found = list(self.entries)
        self.rng.shuffle(found)
        return iter(found)

    def __exit__(self, *_: object) -> None:
        self.entries.close()


def reordered(count: int, scratch: Path) -> Tally:
    """The images have the same order, in whatever order the disk lists them."""
    tally, rng, scandir = Tally(), random.Random(0), os.scandir
    folder = pictures(scratch / "pictures", 60)
    (folder / "cats" / "deep").mkdir()
    (folder / "dogs" / "00.png").rename(folder / "cats" / "deep" / "00.png")
    names = sorted((str(file.relative_to(folder)) for file in folder.rglob("*.png")), key=os.fsencode)
    for _ in range(count):
        with mock.patch.object(os, "scandir", lambda path: Shuffled(scandir(path), rng)):
            tally += list(find_images(folder).names) == names
    return tally


def too_few(count: int, scratch: Path) -> Tally:
    """No images or too few: an error that says what was found, and no run folder."""
    tally = Tally()
    (scratch / "empty").mkdir()
    (scratch / "others").mkdir()
    (scratch / "others" / "readme.md").touch()
    (scratch / "list.txt").write_text("\n\n")
    few, bad = pictures(scratch / "few", 5), pictures(scratch / "bad")
    for file in bad.rglob("*.png"):
        file.write_bytes(b"nothing")
    cases = [
        ("empty", "found no files at all"), ("others", "found 1 x .md file"), ("list.txt", "lists no images"),
        ("nowhere", "does not exist"), (few.name, "only 5"), (bad.name, "more than the 10 allowed"),
    ]  # fmt: skip
    for name, message in cases[:count]:
        try:
            run(scratch / name, scratch / f"run-{name}")
            tally += False
        except Exception as error:
            plain = isinstance(error, DataError | RecipeError) and message in str(error)
            tally += plain and (name == "bad" or not (scratch / f"run-{name}").exists())
    return tally


FAULTS = [
    Fault(
        "I7", "images that change between runs, or during one",
        "refused with a list of changes, the run unchanged; only new times of change: the same bits; images damaged "
        "during a run are skipped",
        "the manifest; the list of bad images (`tests/faults/test_guards_of_names.py`: tries are lost without "
        "it)", 25, 25, changed,
    ),
    Fault(
        "I7", "folders listed in any order", "the same images in the same order",
        "names are sorted by their bytes (`tests/faults/test_guards_of_names.py`: tries are lost without it)",
        20, 20, reordered,
    ),
    Fault(
        "I8", "no images, or too few", "refused with what was found; no run folder is created, unless images had to "
        "be read to know",
        "checks before anything is written (`tests/faults/test_guards_of_names.py`: tries are lost without them)",
        6, 6, too_few,
    ),
]  # fmt: skip
