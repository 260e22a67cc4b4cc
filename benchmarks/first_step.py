"""`python -m benchmarks.first_step FOLDER OUT`: begin a run, and be gone at the end of its first step."""

import os
import sys
from typing import Any
from unittest import mock

from moco import recipes
from moco.train import pretrain
from moco.train.checkpoint import TrainState
from moco.train.watch import Watch

CHANGES = {"optim.batch_size": 32, "method.size": 64}  # the demo's network; as few images as a toy folder may have


class Gone(Watch):
    def __call__(self, state: TrainState, metrics: dict[str, Any]) -> None:
        float(metrics["loss"])
        os._exit(0)  # without a checkpoint, so that the same command begins again


def main(folder: str, out: str) -> None:
    recipe = recipes.named("demo").but("first-step", CHANGES)
    with mock.patch.object(pretrain, "Watch", Gone):
        pretrain.pretrain(folder, out, recipe=recipe, device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
