"""N2: the same seed and images, twice; any number of workers."""

import random
from pathlib import Path

from moco.recipe import Recipe
from moco.train.pretrain import pretrain
from tests.faults.killed_ranks import MECHANISMS
from tests.faults.killed_runs import RECIPE, ending, make_images
from tests.faults.matrix import Fault, Tally


def run(images: Path, out: Path, recipe: Recipe, workers: int) -> str:
    """A hash of the final state of a run."""
    pretrain(images, out, recipe=recipe, workers=workers, device="cpu", eval_data=images, eval_every=1)
    return ending(out)


def pairs(count: int, folder: Path) -> Tally:
    """Each mechanism in turn, with its own seed; another seed must give other results."""
    tally, ends, images = Tally(), [], folder / "images"
    make_images(images, "mixed")
    for trial in range(count):
        name = list(MECHANISMS)[trial % len(MECHANISMS)]
        recipe = RECIPE.but(name, MECHANISMS[name] | {"seed": trial})
        one, other = (run(images, folder / f"{trial}{which}", recipe, 0) for which in "ab")
        ends.append(one)
        tally += one == other and len(set(ends)) == len(ends)
    return tally


def workers(count: int, folder: Path) -> Tally:
    """Workers 0, 1, 2 or 5, for images in memory and on the disk."""
    rng, tally = random.Random(14), Tally()
    ends: dict[str, str] = {}
    for kind in ("mixed", "small"):
        make_images(folder / kind, kind)
        ends[kind] = run(folder / kind, folder / f"{kind}-0", RECIPE, 0)
    for trial in range(count):
        kind = ("mixed", "small")[trial % 2]
        tally += run(folder / kind, folder / f"run{trial}", RECIPE, rng.choice([1, 2, 5])) == ends[kind]
    return tally


FAULTS = [
    Fault("N2", "the same seed twice", "the same bits; with another seed, others", "random numbers are functions of "
          "seed and position (`tests/data/loader/test_same_batches.py`: with one generator, a resumed run gets other "
          "numbers)",
          10, 2, pairs),
    Fault("N2", "any number of workers", "the same bits",
          "the same (`tests/data/loader/test_same_batches.py`: random numbers from a shared generator depend on the "
          "workers)",
          9, 2, workers),
]  # fmt: skip
