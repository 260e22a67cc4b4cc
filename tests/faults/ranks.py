"""Runs of each mechanism that are killed, on one rank and on several.

    python tests/faults/ranks.py FOLDER KILLS SEED queue|v3|end_to_end|bank RANKS

makes a small run in FOLDER/whole undisturbed, then runs whose ranks, all of them or one alone, get SIGKILL at a random
moment and are started again, until KILLS kills are done and all runs have come to their end. A JSON line for each run.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from harness import RECIPE, ending, make_images
from ranked import Ranks

from moco.distributed import RankError
from moco.train.pretrain import pretrain

SECONDS = 20  # that survivors are given
BATCH = {"method.dictionary": "batch", "method.size": None}
MECHANISMS = {
    "queue": {},
    "end_to_end": BATCH | {"method.key_encoder": "shared"},
    "bank": {"method.dictionary": "bank", "method.key_encoder": "none", "method.bn": "split"},
    "v3": BATCH | {
        "method.symmetric": True, "method.scale_loss": True, "method.predictor": "mlp", "method.bn": "sync",
        "encoder.head": "projector2", "encoder.hidden": 16, "optim.optimizer": "lars", "optim.lr": 1.0,
    },
}  # fmt: skip


def started(images: Path, out: Path, mechanism: str, ranks: int, workers: int) -> Ranks:
    recipe = RECIPE.but(mechanism, MECHANISMS[mechanism] | {"method.bn_groups": 2, "compute.threads": 1})

    def work(rank: int) -> None:
        try:
            pretrain(
                images, out, recipe=recipe, workers=workers, save_every=2, device="cpu", eval_data=images, eval_every=1
            )
        except RankError:
            raise SystemExit(1) from None

    return Ranks(work, ranks)


def killed_run(images: Path, out: Path, mechanism: str, ranks: int, dice: random.Random, seconds: float) -> dict:
    """Start, kill, start again, until the run has ended by itself.

    Gives counts: of kills, of those of one rank alone, of survivors that had not met the others yet and waited until
    they were killed, as a launcher does; and how long the survivors that had met lived on [s].
    """
    counts = {"kills": 0, "of_one_rank": 0, "before_they_met": 0, "longest_survival": 0.0}
    while True:
        running = started(images, out, mechanism, ranks, workers=dice.choice([0, 1, 2]))
        lone = dice.choice([None, *range(ranks)]) if ranks > 1 else None
        struck = time.monotonic() + dice.uniform(0, 0.7 * seconds)  # later ones come too late too often
        if counts["kills"] < 4:  # and then it may live
            while running.running and time.monotonic() < struck:
                running.poll()
                time.sleep(0.001)
            running.kill(only=lone)
        try:
            codes = running.wait(SECONDS)
            lived_on = time.monotonic() - struck
        except TimeoutError:
            codes, lived_on = running.wait(), 0.0
            counts["before_they_met"] += 1
        if not any(codes):
            return counts
        if -9 not in codes:
            raise RuntimeError(f"the run in {out} failed after {counts['kills']} kills, with {codes}")
        counts["kills"] += 1
        counts["of_one_rank"] += lone is not None
        counts["longest_survival"] = round(max(counts["longest_survival"], lived_on), 2)


def main(folder: Path, kills: int, seed: int, mechanism: str, ranks: int) -> None:
    torch.set_num_threads(1)  # a fork must not inherit a pool of threads that are not there
    images = folder / "images"
    make_images(images, "mixed")
    start = time.monotonic()
    assert not any(started(images, folder / "whole", mechanism, ranks, 0).wait())
    seconds = time.monotonic() - start
    print(json.dumps({"run": "whole", "kills": 0, "hash": ending(folder / "whole"), "seconds": seconds}), flush=True)
    dice = random.Random(seed)
    done, i = 0, 0
    while done < kills:
        out = folder / f"killed-{i}"
        counts = killed_run(images, out, mechanism, ranks, dice, seconds)
        done, i = done + counts["kills"], i + 1
        print(json.dumps({"run": out.name} | counts | {"hash": ending(out)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
