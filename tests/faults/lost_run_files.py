"""D3, S6: files of a run folder are lost, damaged, or replaced by another run's, between two starts."""

import gzip
import json
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunError, RunFolder
from moco.train.stop_on_signals import Stopped
from moco.weights.read_checkpoint import MANIFEST
from tests.damage import flip_bit
from tests.faults.killed_runs import RECIPE, make_images, state_hash
from tests.faults.matrix import Fault, Tally

SHORT = RECIPE.but("short", {"optim.epochs": 1, "encoder.width": 0.03125})  # 6 steps
NAMES = [f"step_{step:08d}.pt" for step in range(2, 10)]


class StopAtStep4(Silent):
    """Sends this process a signal when the run reports its fourth step."""

    def live(self, *parts: str) -> None:
        if "step 4" in parts:
            os.kill(os.getpid(), signal.SIGTERM)


def train(images: Path, out: Path, recipe: Recipe = SHORT, *, stop: bool = False, overwrite: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pretrain(
                images, out, recipe=recipe, workers=0, device="cpu", save_every=2, overwrite=overwrite,
                reporter=StopAtStep4() if stop else Silent(),
            )  # fmt: skip
        except Stopped:
            assert stop


def ending(out: Path) -> list[object]:
    """The final state of a run, its encoder and each logged loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = checkpoint.newest_intact(out / "checkpoints")
    assert path is not None
    losses = [[one["step"], one["loss"]] for one in RunFolder(out).metrics() if "loss" in one]
    return [
        path.name,
        state_hash(checkpoint.read_checkpoint(path)),
        (out / "encoder" / "model.safetensors").read_bytes(),
        losses,
    ]


def tries(
    count: int, folder: Path, start: str, work: Callable[[Path, Path, random.Random, list[object]], bool]
) -> Tally:
    """Run `work` on copies of a run that was stopped after step 4, or of a finished one."""
    images, tally, rng = folder / "images", Tally(), random.Random(7)
    make_images(images, "small")
    train(images, folder / "finished")
    train(images, folder / "stopped", stop=True)
    for trial in range(count):
        out = folder / f"run-{trial}"
        shutil.copytree(folder / start, out)
        good = work(images, out, rng, ending(folder / "finished"))
        tally += good
        if not good:
            print(f"try {trial} of {start}: lost", file=sys.stderr)
        shutil.rmtree(out)
    return tally


def lost_manifests(count: int, folder: Path) -> Tally:
    """The manifest is removed, emptied or truncated, and in every other try the newest checkpoint is damaged too."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        place = out / "checkpoints"
        manifest = (place / MANIFEST).read_bytes()
        (place / MANIFEST).unlink()
        if (cut := rng.choice([None, b"", b"[]", manifest[: rng.randrange(len(manifest))]])) is not None:
            (place / MANIFEST).write_bytes(cut)
        if rng.random() < 0.5:
            content = (place / NAMES[2]).read_bytes()
            (place / NAMES[2]).write_bytes(content[: rng.randrange(len(content))])
        train(images, out)
        there = {path.name for path in place.glob("step_*.pt")}
        return ending(out) == whole and {NAMES[0], NAMES[2], NAMES[4]} <= there

    return tries(count, folder, "stopped", work)


def foreign_checkpoints(count: int, folder: Path) -> Tally:
    """Checkpoints of another seed, intact or truncated, earlier or later. Only an intact later one is refused."""
    other = SHORT.but("short", {"seed": 7})

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        if not (folder / "other").exists():
            train(images, folder / "other", other)
        source, place = rng.choice(NAMES[:5:2]), rng.choice([NAMES[1], NAMES[3], NAMES[4], NAMES[7]])
        content = (folder / "other" / "checkpoints" / source).read_bytes()
        is_whole = rng.random() < 0.5
        content = content if is_whole else content[: rng.randrange(len(content))]
        theirs = out / "checkpoints" / place
        theirs.write_bytes(content)
        is_taken = is_whole and place == source and place > NAMES[2]
        try:
            train(images, out)
            well = ending(out) == whole
        except RunError as error:
            well = is_taken and "seed" in str(error)
        kept = theirs.with_name(f"{place}.other")
        return well and (kept if kept.exists() else theirs).read_bytes() == content

    return tries(count, folder, "stopped", work)


def same_recipe(count: int, folder: Path) -> Tally:
    """An intact checkpoint of another run with the same recipe and seed, but other images. It is skipped and stays."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        if not (folder / "other").exists():
            make_images(folder / "others", "mixed")
            train(folder / "others", folder / "other")
        place, lists = out / "checkpoints", rng.choice(["none", "its own", "both"])
        name = rng.choice([NAMES[2], NAMES[4]])  # the newest of this run is NAMES[2]
        content = (folder / "other" / "checkpoints" / name).read_bytes()
        if lists == "none":
            (place / MANIFEST).unlink()
        if lists == "both":
            theirs = json.loads((folder / "other" / "checkpoints" / MANIFEST).read_bytes())
            own = [one for one in json.loads((place / MANIFEST).read_bytes()) if one["name"] != name]
            (place / MANIFEST).write_text(json.dumps([*own, *(one for one in theirs if one["name"] == name)]))
        (place / name).write_bytes(content)
        train(images, out)
        is_damaged = lists == "its own" and name == NAMES[2]  # its SHA-256 is not that in the manifest
        stays = is_damaged or any(file.read_bytes() == content for file in place.glob(f"{name}*"))
        return ending(out) == whole and stays

    return tries(count, folder, "stopped", work)


def damaged_ends(count: int, folder: Path) -> Tally:
    """finished.json is truncated, flipped, emptied or other JSON: the run finishes again, with the same bits."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        file = out / "finished.json"
        content = file.read_bytes()
        at = rng.randrange(len(content))
        flipped = flip_bit(content, at, rng)
        others = [b"", b"{}", b"null", b"[1, 2]", b'{"steps": 6}', b"[" * 9999, gzip.compress(content)]
        file.write_bytes(rng.choice([content[:at], flipped, rng.choice(others)]))
        train(images, out)
        return ending(out) == whole and RunFolder(out).finished and isinstance(json.loads(file.read_bytes()), dict)

    return tries(count, folder, "finished", work)


GUARDS = "tests/train/test_checkpoint.py"
FAULTS = [
    Fault("D3", "a lost manifest", "the same bits; no checkpoint is removed",
          f"a checkpoint's own checksums; unlisted files are never removed (`{GUARDS}`)", 20, 2, lost_manifests),
    Fault("D3", "checkpoints of another run among a run's own",
          "refused with the differing settings if it is the newest; older and damaged ones are ignored: the same bits",
          f"the recipe in each checkpoint; unlisted files are never removed (`{GUARDS}`)", 20, 3, foreign_checkpoints),
    Fault("D3", "a checkpoint of another run with the same recipe",
          "skipped with a message, and stays: the same bits",
          "each checkpoint has the run's id (`tests/train/test_run_id.py`)", 20, 3, same_recipe),
    Fault("S6", "damaged finished.json", "the run finishes again: the same bits",
          "the numbers in it are checked (`tests/train/test_lost_parts.py`)", 20, 3, damaged_ends),
]  # fmt: skip
