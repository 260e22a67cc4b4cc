"""I1 to I3: thousands of damaged images, damage that decoding does not show, and intact images of every kind."""

import itertools
import os
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from moco.data.check.check import check
from moco.data.check.checksums import digest_changes
from moco.data.decode import jpeg
from moco.data.decode.decode import BadImage, decode
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import find_images
from moco.data.sources.manifest import manifest_changes, manifest_of
from moco.train.pretrain import pretrain
from tests.data.damaged_files import damaged, seed_files
from tests.data.golden import CASES
from tests.faults.forked_child import in_child
from tests.faults.killed_runs import RECIPE
from tests.faults.matrix import Fault, Tally

BATCH = 100  # files a child decodes
SLOW, HUGE = 2.0, 700.0  # CPU seconds of a file, and MB of a child, above which a try is lost


def mutant(trial: int) -> tuple[str, bytes]:
    """Name and bytes of a damaged file; kinds alternate."""
    seeds = sorted(seed_files().items())
    name, data = seeds[trial % len(seeds)]
    return f"{trial:05d}.{name.split('.')[-1]}", damaged(data, np.random.default_rng(trial))


def sound(file: Path) -> bool:
    """Whether both decoders soon give the same: an image, or a BadImage with a reason."""
    start = time.process_time()
    fate = outcome(file)
    if time.process_time() - start > SLOW:
        return False
    with mock.patch.object(jpeg, "read_header", return_value=None):
        alone = outcome(file)
    if isinstance(fate, str) or isinstance(alone, str):
        return fate == alone != ""
    return fate.dtype == np.uint8 and fate.ndim == 3 and fate.shape[2] == 3 and np.array_equal(fate, alone)


def outcome(file: Path) -> np.ndarray | str:
    """The image, or why it is bad; "" after another error."""
    try:
        return decode(file)
    except BadImage as bad:
        return bad.reason
    except Exception:
        return ""


def fuzzed(count: int, folder: Path) -> Tally:
    """Decode damaged files of every kind in child processes."""
    tally = Tally()

    def batch(trials: range) -> list[bool]:
        warnings.simplefilter("ignore")  # of Pillow, about EXIF blocks and sizes
        good = []
        for trial in trials:
            name, data = mutant(trial)
            (folder / name).write_bytes(data)
            good.append(sound(folder / name))
            (folder / name).unlink()
        return good

    for start in range(0, count, BATCH):
        trials = range(start, min(start + BATCH, count))
        seen = in_child(lambda trials=trials: batch(trials), seconds=300)
        fine = seen is not None and seen.megabytes < HUGE
        for good in seen.answer if fine else [False] * len(trials):
            tally += good
    return tally


def in_a_run(count: int, folder: Path) -> Tally:
    """A run with as many damaged as intact files skips exactly the bad ones, and finishes."""
    images, out, tally = folder / "images", folder / "run", Tally()
    images.mkdir()
    warnings.simplefilter("ignore")
    total = 2 * count + -2 * count % 8  # of mini-batches of 8: every image is seen
    for i in range(total - count):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"sound-{i:05d}.png")
    names = []
    for trial in range(count):
        name, data = mutant(1_000_000 + trial)
        (images / name).write_bytes(data or b"x")
        names.append(name)
    recipe = RECIPE.but("fuzzed", {"optim.epochs": 1})
    seen = in_child(
        lambda: bool(pretrain(images, out, recipe=recipe, workers=0, device="cpu", max_bad=count)), seconds=900
    )
    aside = Quarantine(out / "bad_images.csv", None, total).bad if seen is not None else None
    for name in names:
        tally += aside is not None and isinstance(outcome(images / name), str) == (name in aside)
    return tally


def unseen(count: int, folder: Path) -> Tally:
    """A changed byte of a photo that still decodes: size, time and decoder do not show it, the hash does."""
    tally, rng = Tally(), np.random.default_rng(0)
    for i in range(20):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.jpg")
    files = sorted(folder.glob("*.jpg"))
    before, manifest = digests(folder), manifest_of(find_images(folder))
    for trial in range(count):
        file = files[trial % len(files)]
        whole, times, pixels = file.read_bytes(), file.stat(), decode(file)
        for _ in itertools.count():
            data = bytearray(whole)
            data[rng.integers(len(data) // 2, len(data) - 2)] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            after = outcome(file)
            if not isinstance(after, str) and not np.array_equal(after, pixels):
                break
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        unnoticed = manifest_changes(manifest, manifest_of(find_images(folder))) == []
        tally += unnoticed and digest_changes(before, digests(folder)) == [f"1 changed: {file.name}"]
        file.write_bytes(whole)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return tally


def digests(folder: Path) -> dict[str, bytes]:
    """SHA-256 of every file, by `moco check`."""
    report = check(find_images(folder))
    return {name: one.digest for name, one in zip(report.names, report.inspections, strict=True)}


def golden(count: int, folder: Path) -> Tally:
    """Intact files of every kind decode to what the table in docs/data.md says."""
    tally = Tally()
    warnings.simplefilter("ignore")
    for case in CASES[:count]:
        (folder / "x").write_bytes(case.data)
        got = outcome(folder / "x")
        same = not isinstance(got, str) and got.shape == case.pixels.shape
        tally += bool(same and np.abs(got - case.pixels.astype(float)).max() <= case.within)
    return tally


FAULTS = [
    Fault(
        "I1", "damaged images, decoded", "an image, or an error with a reason, within 2 s of CPU; both decoders agree",
        "every exception becomes BadImage; simplejpeg is strict (`tests/faults/test_guards_of_images.py`: tries "
        "are lost without it)",
        5000, 300, fuzzed,
    ),
    Fault(
        "I1", "damaged images in a run", "the bad ones are skipped and listed, and the run finishes",
        "the list of bad images (`tests/faults/test_guards_of_images.py`: tries are lost without it)",
        500, 30, in_a_run,
    ),
    Fault(
        "I2", "damage that still decodes", "decoder, size and time do not show it; `moco check --against` names the "
        "file",
        "SHA-256 of the contents (`tests/test_cli_check.py`); a run does not compute it: a known limit", 20, 5, unseen,
    ),
    Fault(
        "I3", "intact images of every kind", "pixels as the table in docs/data.md says",
        "explicit rules for each kind (`tests/faults/test_guards_of_images.py`: tries are lost with Pillow's convert)",
        len(CASES), len(CASES), golden,
    ),
]  # fmt: skip
