"""How far the time and memory that `moco plan` states are from those of the runs: pairs of a plan and a run, in turn.

    python -m benchmarks.plan_accuracy IMAGES [IMAGES ...] --pairs 5 --seconds 40

For each set of images, a recipe is measured as a plan does, then a run of about so many seconds is trained, and so on.
It prints the ratio of seconds per image and of peak memory, run over plan, and the median error of each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROBE = """
import json, sys, torch
from moco.data.sources.open import open_images
from moco.device import workers_for
from moco.recipe import Recipe
from moco.train.plan_budget import RecipeMeasurer, fit_epochs, plan_budget
images, place = open_images([sys.argv[1]]), torch.device("cpu")
recipe = plan_budget(images, place, workers=workers_for(None), budget=300).chosen.recipe if sys.argv[2] == "new" \\
    else Recipe.from_json(sys.argv[2])
one = RecipeMeasurer(images, place, workers_for(None), 25, lambda _: None).measure(recipe, seconds=8)
one = fit_epochs(one, float(sys.argv[3]))
print(json.dumps({"recipe": one.recipe.to_json(), "seconds": one.image.seconds(one.seen, len(images)) / one.seen,
                  "memory": one.memory}))
"""


def measure_plan(images: str, recipe: str, seconds: float) -> dict[str, Any]:
    """What a plan says of a recipe ("new": the one that it chooses), in a process of its own."""
    command = [sys.executable, "-c", PROBE, images, recipe, str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_run(images: str, recipe: str) -> dict[str, float]:
    """Train a run of the recipe. Returns seconds per image of its steps, and the peak memory of its process [bytes]."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "recipe.json"), Path(folder, "run")
        file.write_text(recipe)
        process = subprocess.Popen(
            [sys.executable, "-m", "moco", "pretrain", images, "--out", str(out), "--recipe", str(file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"the run on {images} failed with status {status}")
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        last = [record for record in records if "images_per_second" in record][-1]
        return {"seconds": 1 / last["images_per_second"], "memory": usage.ru_maxrss * 1024.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("images", nargs="+", help="folders of images")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40, help="of each run")
    args = parser.parse_args()
    for images in args.images:
        recipe, ratios = "new", []
        for _ in range(args.pairs):
            planned = measure_plan(images, recipe, args.seconds)
            recipe = planned["recipe"]
            run = measure_run(images, recipe)
            ratios.append({name: run[name] / planned[name] for name in ("seconds", "memory")})
            print(images, json.dumps({"planned": planned | {"recipe": ""}, "run": run}), flush=True)
        for name in ("seconds", "memory"):
            found = [ratio[name] for ratio in ratios]
            error = statistics.median(abs(ratio - 1) for ratio in found)
            print(f"{images}: {name}: run / plan {', '.join(f'{ratio:.2f}' for ratio in found)}; error {error:.0%}")


if __name__ == "__main__":
    main()
