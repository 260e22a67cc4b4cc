"""`python -m benchmarks.first_step FOLDER OUT`: run `moco pretrain` and exit after its first step."""

import os
import sys

from moco.cli import main
from moco.train.console import Console

# small enough for a toy folder; with so few steps, each is logged
SETTINGS = {"optim.batch_size": 32, "method.size": 64, "optim.epochs": 0.1}


def exit_now(self: Console, *parts: str) -> None:
    """Replaces the progress line, which is printed after a step. No checkpoint is saved, so the command starts anew."""
    os._exit(0)


if __name__ == "__main__":
    Console.live = exit_now
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    folder, out = sys.argv[1:]
    sys.argv = ["moco", "pretrain", folder, "--out", out, "--recipe", "demo", "--device", "cpu", *settings]
    main()
