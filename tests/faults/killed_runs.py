"""P1: kill runs. The parent imports everything once, and forks a child for each try.

A small run finishes undisturbed. Further runs get SIGKILL at random moments and are restarted with other numbers of
workers, until they finish. All must end with the same bits.
"""

import hashlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from moco import recipes
from moco.train import checkpoint
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from tests.faults.matrix import Fault, Tally

ROOT = Path(__file__).parents[2]
Start = Callable[[Path, Path, int], int]  # images, run folder, workers -> the process
RECIPE = recipes.named("demo").but(
    "killed",
    {
        "encoder.width": 0.0625, "encoder.dim": 8, "data.size": 16, "data.eval_resize": 16, "method.size": 20,
        "optim.batch_size": 8, "optim.epochs": 3,
    },
)  # fmt: skip


def make_images(folder: Path, kind: str, n: int = 50) -> None:
    """Pictures of two classes, one of them broken; of several sizes ("mixed"), or of one, for memory ("small")."""
    rng = np.random.default_rng(0)
    for i in range(n):
        place = folder / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + (i % 3 if kind == "mixed" else 0), 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    (folder / "class1" / "007.png").write_bytes(b"not a picture")


def fork(images: Path, out: Path, workers: int) -> int:
    """Start or resume the run in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            pretrain(
                images, out, recipe=RECIPE, workers=workers, save_every=2, device="cpu", eval_data=images, eval_every=1
            )
            code = 0
        finally:
            os._exit(code)
    return child


def command(images: Path, out: Path, workers: int) -> int:
    """The same by the command `moco pretrain`, in a new process."""
    recipe = images.with_name("recipe.json")
    recipe.write_text(RECIPE.to_json())
    words = [sys.executable, "-m", "moco", "pretrain", images, "--out", out, "--recipe", recipe, "--workers", workers]
    words += ["--device", "cpu", "--save-every", 2, "--eval-data", images, "--eval-every", 1]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(os.devnull, "w") as nothing:
        quiet = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), stream) for stream in (1, 2)]
        return os.posix_spawn(sys.executable, list(map(str, words)), environment, file_actions=quiet)


def ending(out: Path) -> str:
    """A hash of the final weights, queue, optimizer and clock, and of every logged loss."""
    digest = hashlib.sha256()
    path = checkpoint.newest_intact(out / "checkpoints")
    assert path is not None
    digest.update(state_hash(checkpoint.read_checkpoint(path)).encode())
    records = RunFolder(out).metrics()
    logged = [[record["step"], record["loss"], record["pretext_top1"]] for record in records if "loss" in record]
    scores = [[record["step"], record["knn"]] for record in records if "knn" in record]
    assert [step for step, *_ in logged] == list(range(1, 19)), "every step is logged once"
    assert [step for step, _ in scores] == [0, 6, 12, 18], "every score is logged once"
    digest.update(json.dumps([logged, scores]).encode())
    digest.update((out / "encoder" / "model.safetensors").read_bytes())
    digest.update((out / "bad_images.csv").read_bytes())
    return digest.hexdigest()


def state_hash(payload: dict) -> str:
    """A hash of everything that a checkpoint restores."""
    digest = hashlib.sha256()
    _feed(digest, [payload["state"], payload.get("statistics")])  # statistics: only with several ranks
    return digest.hexdigest()


def _feed(digest, node) -> None:
    if isinstance(node, torch.Tensor):
        digest.update(node.contiguous().numpy().tobytes())
    elif isinstance(node, dict):
        for key in sorted(node, key=str):
            digest.update(str(key).encode())
            _feed(digest, node[key])
    elif isinstance(node, list | tuple):
        for item in node:
            _feed(digest, item)
    else:
        digest.update(repr(node).encode())


def killed_run(images: Path, out: Path, rng: random.Random, seconds: float, start: Start = fork) -> int:
    """Start, kill and restart the run until it finishes. Returns the number of kills."""
    kills = 0
    while True:
        child = start(images, out, rng.choice([0, 1, 2]))
        moment = time.monotonic() + (
            rng.uniform(0, seconds) if kills < 4 else math.inf
        )  # the fifth start is not killed
        done, status = 0, 0
        while not done and time.monotonic() < moment:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.001)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        elif os.waitstatus_to_exitcode(status) == 0:
            return kills
        else:
            raise RuntimeError(f"the run in {out} failed after {kills} kills")


def kills(
    count: int,
    folder: Path,
    kind: str,
    start: Start = fork,
    *,
    result: Callable[[Path], object] = ending,
    seed: int = 1,
) -> Tally:
    """The kills of runs on pictures: see `kills_in`."""
    make_images(folder / "images", kind)
    return kills_in(count, folder, start, result=result, seed=seed)


def kills_in(count: int, folder: Path, start: Start, *, result: Callable[[Path], object], seed: int = 1) -> Tally:
    """Kill runs on `folder`/images. Kills count as survived if their run has the `result` of the undisturbed one."""
    images = folder / "images"
    os.waitpid(start(images, folder / "warm", 0), 0)  # what is compiled or cached the first time
    begun = time.monotonic()
    os.waitpid(start(images, folder / "whole", 0), 0)
    seconds, whole = time.monotonic() - begun, result(folder / "whole")
    rng, tally = random.Random(seed), Tally()
    while tally.tried < count:
        out = folder / f"killed-{tally.tried}"
        came = killed_run(images, out, rng, seconds, start)
        good = result(out) == whole
        for _ in range(came):
            tally += good
    return tally


GUARD = (
    "all state is in one file, everything else is a function of the step (`tests/train/test_resume.py`: if a resume "
    "loses the queue, f_k or BN's statistics, the results differ)"
)
EXPECTED = "final weights, queue and optimizer, and each logged loss and score, have the same bits"
FAULTS = [
    Fault("P1", "SIGKILL anywhere in a run", EXPECTED, GUARD, 140, 12, partial(kills, kind="mixed")),
    Fault("P1", "SIGKILL anywhere, images in memory", EXPECTED, GUARD, 60, 6, partial(kills, kind="small")),
    Fault("P1", "SIGKILL of the command", EXPECTED, GUARD, 20, 2, partial(kills, kind="mixed", start=command)),
]
