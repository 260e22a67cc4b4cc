"""Planted faults: does `moco diagnose` find each, and no fault in healthy runs?

    python -m benchmarks.faults_planted --out runs/planted --seeds 0,1,2

Runs of the demo's ablation scale: 12,000 pictures of 32 x 32 pixels, 4 epochs or 3, less than a minute of one core
each. Each run is measured during training at the cost of a usual run, and then by `moco diagnose RUN --data DATA`. A
run that is there already is not repeated. Writes planted.json and planted.md.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moco.ablate.scales import ABLATION_SCALES
from moco.data.sources.demo import demo_data
from moco.data.sources.images import Images, Subset
from moco.data.sources.open import open_images
from moco.diagnose.history import PROBE_KEY
from moco.evaluate.monitor import monitor_for
from moco.files import write_json, write_text
from moco.recipe import Recipe
from moco.schedule import Cosine
from moco.train.diagnose_run import diagnose_run
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder

HEALTHY = ("healthy", "plateau", "still learning")
SIDE = 32  # [pixels]
EPOCHS = 4  # 748 steps


class Flat:
    """`count` images of one grey."""

    labels: None = None
    classes: Sequence[str] = ()

    def __init__(self, count: int):
        self.names = [f"{i}" for i in range(count)]
        self.sizes = self.mtimes = np.zeros(count, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)


class Slow:
    """The same images, each read in 10 ms."""

    def __init__(self, images: Images):
        self.images, self.names, self.sizes, self.mtimes = images, images.names, images.sizes, images.mtimes
        self.labels: None = None
        self.classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        time.sleep(0.01)
        return self.images.read(index)


def flat(images: Images) -> Flat:
    return Flat(len(images))


@dataclass(frozen=True)
class Planted:
    """A run, and the words of the verdicts that are right for it."""

    recipe: Recipe
    right: tuple[str, ...] = HEALTHY
    images: Callable[[Images], Any] = lambda images: images


def half_twice(images: Images) -> Images:
    return Subset(images, np.concatenate([np.arange(8000), np.arange(4000)]))


def cases() -> dict[str, Planted]:
    scale = ABLATION_SCALES["demo"]()
    v1, v3 = scale.moco.but(None, {"optim.epochs": EPOCHS}), scale.v3
    v2 = v1.but(None, {"encoder.head": "mlp", "encoder.hidden": 256})
    projector = {
        "encoder.head": "projector2", "encoder.hidden": 256, "method.dictionary": "batch", "method.size": None,
        "method.symmetric": True, "method.predictor": "mlp", "method.bn": "plain", "method.temperature": 0.2,
        "method.scale_loss": True, "method.momentum": Cosine(0.99, stop=1.0), "optim.batch_size": 128,
        "optim.lr": Cosine(0.06),
    }  # fmt: skip

    def copies(times: int) -> Callable[[Images], Images]:
        return lambda images: Subset(images, np.arange(len(images)) % (len(images) // times))

    def changed(recipe: Recipe, **changes: Any) -> Recipe:
        return recipe.but(None, {name.replace("__", "."): value for name, value in changes.items()})

    return {
        "v1, healthy": Planted(v1),
        "v2, healthy": Planted(v2),
        "v3 with a ResNet, healthy": Planted(v1.but(None, projector)),
        "v3 with a ViT, healthy": Planted(v3),
        "m = 0": Planted(changed(v1, method__momentum=0.0), ("stale keys",)),
        "m = 0.9999": Planted(changed(v1, method__momentum=0.9999), ("key encoder lags",)),
        "BN groups of 8, not shuffled": Planted(changed(v1, method__bn="split", method__bn_groups=8), ("BN leak",)),
        "BN groups of 4, not shuffled": Planted(changed(v1, method__bn="split", method__bn_groups=16), ("BN leak",)),
        "learning rate x 30": Planted(
            changed(v1, optim__lr=v1.optim.lr.scaled(30)), ("learning rate too high", "collapsed")
        ),
        "learning rate x 30, v3 with a ViT": Planted(
            changed(v3, optim__lr=v3.optim.lr.scaled(30)), ("learning rate too high", "collapsed")
        ),
        "learning rate x 0.001": Planted(changed(v1, optim__lr=v1.optim.lr.scaled(0.001)), ("learns little",)),
        "each picture ten times, K above the pictures": Planted(v1, ("copies",), copies(10)),
        "20 pictures only": Planted(v1, ("copies",), copies(600)),
        "K = 10,240 of 12,000 images": Planted(changed(v1, method__size=10240), HEALTHY),
        "half of 8,000 pictures twice, K = 8,192": Planted(
            changed(v1, method__size=8192), ("false negatives",), half_twice
        ),
        "images of one grey": Planted(v1, ("copies", "collapsed"), flat),
        "slow reading": Planted(changed(v1, optim__epochs=1), ("starved",), Slow),
    }


def run_case(name: str, case: Planted, seed: int, out: Path) -> dict[str, Any]:
    folder = out / f"{'-'.join(name.replace(',', '').split())}-{seed}"
    images = case.images(open_images(demo_data() / "train"))
    recipe = case.recipe.but(name, {"seed": seed})
    start = time.process_time()
    pretrain(images, folder, recipe=recipe, workers=1, device="cpu", save_every=200, keep=10)
    trained = time.process_time() - start
    records = RunFolder(folder).metrics()
    live = [(record["step"], record["verdict"]) for record in records if PROBE_KEY in record]
    found, content = diagnose_run(folder, images, device="cpu", workers=1)
    knn = monitor_for(demo_data(), recipe.data, device=_cpu(), workers=1).score(_encoder(folder))
    return {
        "case": name, "seed": seed, "right": case.right, "live": live, "probe": live_probe(records),
        "verdict": found.word, "dense": found.dense.word, "others": [one.word for one in found.others],
        "sentence": str(found.classification), "measurement": content["measurement"], "knn": knn,
        "cpu_seconds": trained,
        "without_images": diagnose_run(folder)[0].word if live else None,
    }  # fmt: skip


def live_probe(records: Sequence[dict[str, Any]]) -> int | None:
    return next((record[PROBE_KEY]["probe"] for record in records if PROBE_KEY in record), None)


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def _encoder(folder: Path) -> Any:
    from moco.evaluate.features import load_pretrained

    return load_pretrained(folder, device="cpu").encoder


def table(results: Sequence[dict[str, Any]]) -> str:
    """A row for each case: the verdicts of its seeds, at the end by all images and during training."""
    heads = ("run", "right verdict", "`moco diagnose --data`", "during training, last", "kNN-20 [%]")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(one["case"] for one in results):
        some = [one for one in results if one["case"] == name]
        right = "no fault" if tuple(some[0]["right"]) == HEALTHY else " or ".join(some[0]["right"])
        last = ", ".join(one["live"][-1][1] if one["live"] else "-" for one in some)
        knn = ", ".join(f"{one['knn']:.1f}" for one in some)
        lines.append(f"| {name} | {right} | {', '.join(one['verdict'] for one in some)} | {last} | {knn} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/planted"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", help="names of runs")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for seed in map(int, given.seeds.split(",")):
        for name, case in cases().items():
            if given.only and name not in given.only:
                continue
            results.append(run_case(name, case, seed, given.out))
            print(f"{name}, seed {seed}: {results[-1]['verdict']}", flush=True)
            write_json(given.out / "planted.json", results)
    write_text(given.out / "planted.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
