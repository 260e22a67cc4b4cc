"""Options for more signal from an image, at equal CPU time: `python -m benchmarks.more_signal FOLDER [FOLDER ...]`.

For each folder of labelled images, `auto`'s recipe for its smallest networks is trained as it is and with each option.
The CPU time of a step is measured for all options in turn; each run gets as many steps as `--seconds` of it allow.
Scores are of frozen features: logistic regression on 10 labels of each class (10 draws), 20-NN and a linear probe, with
the mean and the standard deviation over the seeds. Random parameters are the baseline.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco.comparison.measures import measure_encoder
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import Images, Subset
from moco.data.sources.split import Split, split_sources
from moco.encoders import Encoder, build_headless
from moco.evaluate.baselines import random_encoder
from moco.evaluate.features import extract, load_pretrained
from moco.recipe import DataSpec, Recipe
from moco.recipes.auto import auto
from moco.train.build import contrast_for, in_format
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.measure_step import fill_memory
from moco.train.optim import optimizer_for
from moco.train.pretrain import pretrain

CPU = torch.device("cpu")
MEASURED = ("10 labels a class", "20-NN", "linear")
STEPS = 12  # steps timed at once, after 3 more
ROUNDS = 5


def options_for(base: Recipe) -> dict[str, dict[str, Any]]:
    """The changes of each option to the recipe."""
    small = {"data.small_size": base.data.size // 2, "data.small_area": (0.1, 0.4)}
    plain = {f"data.views.1.{name}": 0.0 for name in ("jitter.p", "grey", "blur")}
    return {
        "as it is": {},
        "2 small crops": {"data.small_crops": 2} | small,
        "4 small crops": {"data.small_crops": 4} | small,
        "keys of 2 views": {"data.key_views": 2},
        "symmetric": {"method.symmetric": True},
        "plain keys": plain,
    }


def cpu_seconds(recipe: Recipe, images: Images) -> float:
    """The CPU time of a step, with the making of its views [s]."""
    loader = ViewLoader(
        images, recipe.data, batch_size=recipe.optim.batch_size, seed=0, steps=range(3 + STEPS), workers=0, device=CPU,
        quarantine=Quarantine(None, len(images), len(images)),
    )  # fmt: skip
    fill_memory(loader)
    contrast = contrast_for(recipe, CPU, num_images=len(images), model=None, init=None, say=lambda _: None)
    state = TrainState(contrast, optimizer_for(contrast, recipe.optim), Clock(3 + STEPS, 3 + STEPS))
    times: list[float] = []
    train(
        contrast, state, in_format(loader, recipe), lr=recipe.optim.lr, m=recipe.method.momentum, seed=0,
        after_step=lambda *_: times.append(time.process_time()),
    )  # fmt: skip
    return (times[-1] - times[2]) / STEPS


def scores_of(encoder: Encoder, data: DataSpec, split: Split) -> dict[str, float]:
    """The accuracy by each of MEASURED [percent]."""
    train_set, test_set = (
        extract(encoder, images, data, device=CPU, workers=1, quarantine=Quarantine(None, len(images), len(images)))
        for images in (split.train, split.test)
    )
    found = measure_encoder(train_set, test_set, device=CPU).correct
    return {name: 100 * float(np.mean(found[name])) for name in MEASURED if name in found}


def compare_options(
    folder: str, *, scale: str, seconds: float, seeds: int, only: list[str]
) -> Iterator[dict[str, Any]]:
    """A row for each option and seed, and one for random parameters."""
    split = split_sources(folder)
    count = len(split.train)
    base = auto(count, side=min(split.train.read(0).shape[:2]), accelerated=False, scale=scale)
    base = base.but(None, {"data.shrink": 2 * base.data.size, "compute.threads": 1})
    options = {name: changes for name, changes in options_for(base).items() if not only or name in only}
    recipes = {name: base.but(None, changes) for name, changes in options.items()}
    some = Subset(split.train, np.arange(min(count, 2048)))
    rounds = [{name: cpu_seconds(recipe, some) for name, recipe in recipes.items()} for _ in range(ROUNDS)]
    each = {name: statistics.median(one[name] for one in rounds) for name in recipes}
    per_epoch = count // base.optim.batch_size
    for seed in range(seeds):
        random = random_encoder(build_headless(base.encoder, size=base.data.size), seed=seed)
        yield {"set": folder, "option": "random parameters", "seed": seed} | scores_of(random, base.data, split)
        for name, changes in options.items():
            epochs = seconds / each[name] / per_epoch
            with tempfile.TemporaryDirectory() as out:
                changed = changes | {"optim.epochs": epochs, "seed": seed}
                run = pretrain(
                    split.train, Path(out, "run"), recipe=base, settings=changed, device="cpu",
                    workers=0, report=False, compare=False, diagnose_every=0, max_bad=0.1,
                )  # fmt: skip
                scores = scores_of(load_pretrained(run.path, device="cpu").encoder, run.recipe.data, split)
            yield {
                "set": folder, "option": name, "seed": seed, "cpu_seconds_of_step": each[name],
                "steps": round(epochs * per_epoch),
            } | scores  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "folders", nargs="+", help="labelled images; SCALE:FOLDER for another scale of `auto` than tiny"
    )
    parser.add_argument("--seconds", type=float, default=100, help="CPU time of each run's steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="OPTION")
    parser.add_argument("--out", type=Path, required=True, help="a file, to which a line of JSON is added for each run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for text in given.folders:
        scale, _, folder = text.rpartition(":")
        for row in compare_options(
            folder, scale=scale or "tiny", seconds=given.seconds, seeds=given.seeds, only=given.only
        ):
            print(json.dumps(row), flush=True)
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
