"""`python -m benchmarks.first_step FOLDER OUT`: the command `moco pretrain`, gone at the end of its first step."""

import os
import sys

from moco.cli import main
from moco.train.console import Console

# the demo's network; as few images as a toy folder may have; so few steps that each is logged
SETTINGS = {"optim.batch_size": 32, "method.size": 64, "optim.epochs": 0.1}


def gone(self: Console, *parts: str) -> None:
    """In place of the live line, which has the loss in it. Without a checkpoint, the same command begins again."""
    os._exit(0)


if __name__ == "__main__":
    Console.live = gone
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    folder, out = sys.argv[1:]
    sys.argv = ["moco", "pretrain", folder, "--out", out, "--recipe", "demo", "--device", "cpu", *settings]
    main()
