"""P1, P5: kill runs of each mechanism, on one rank and on several.

A small run finishes undisturbed. In further runs, one rank or all get SIGKILL at random moments and are restarted,
until the runs finish. All must end with the same bits.
"""

import random
import time
from functools import partial
from pathlib import Path

from run_ranks import Ranks

from moco.distributed import RankError
from moco.train.pretrain import pretrain
from tests.faults.killed_runs import EXPECTED, GUARD, RECIPE, ending, make_images
from tests.faults.matrix import Fault, Tally

SECONDS = 20  # [s] in which surviving ranks must end
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


def killed_run(images: Path, out: Path, mechanism: str, ranks: int, rng: random.Random, seconds: float) -> dict:
    """Start, kill and restart the run until it finishes.

    Returns counts: of kills; of kills of a single rank; of surviving ranks that were still waiting for the others to
    join, and were killed, as a launcher does; and how long the other survivors ran on [s].
    """
    counts = {"kills": 0, "of_one_rank": 0, "before_they_met": 0, "longest_survival": 0.0}
    while True:
        running = started(images, out, mechanism, ranks, workers=rng.choice([0, 1, 2]))
        lone = rng.choice([None, *range(ranks)]) if ranks > 1 else None
        struck = time.monotonic() + rng.uniform(0, 0.7 * seconds)  # later kills often come after the end
        if counts["kills"] < 4:  # the fifth start is not killed
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


def kills(count: int, folder: Path, ranks: int) -> Tally:
    """`count` tries, equally many for each mechanism."""
    images, tally = folder / "images", Tally()
    make_images(images, "mixed")
    for number, mechanism in enumerate(MECHANISMS):
        place, rng = folder / mechanism, random.Random(number)
        if not number:
            started(images, place / "warm", mechanism, ranks, 0).wait()  # what is compiled or cached the first time
        start = time.monotonic()
        assert not any(started(images, place / "whole", mechanism, ranks, 0).wait())
        seconds, whole = time.monotonic() - start, ending(place / "whole")
        while tally.tried < count * (number + 1) / len(MECHANISMS):
            out = place / f"killed-{tally.tried}"
            counts = killed_run(images, out, mechanism, ranks, rng, seconds)
            good = ending(out) == whole
            for _ in range(counts["kills"]):
                tally += good
    return tally


FAULTS = [
    Fault("P1", "SIGKILL anywhere, every mechanism", EXPECTED, GUARD, 60, 4, partial(kills, ranks=1)),
    Fault("P5", "one rank of two, or both, killed: every mechanism", EXPECTED,
          "each rank's statistics are in the checkpoint (`tests/ranks/test_runs.py`: with those of another rank, the "
          "results differ)", 60, 4, partial(kills, ranks=2)),
]  # fmt: skip
