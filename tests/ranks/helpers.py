"""Runs on two ranks, and how they end."""

import os
import time
from pathlib import Path

import torch
import typer
from run_ranks import Ranks

from moco.cli.errors import errors
from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder


class AtStep(Silent):
    """Does something when the run shows the given step."""

    def __init__(self, step: int, do):
        self.step, self.do = step, do

    def live(self, *parts: str) -> None:
        if f"step {self.step}" in parts:
            self.do()


def kill(number: int):
    return lambda: os.kill(os.getpid(), number)


def on_two(*args, world: int = 2, of_rank=lambda r: {}, **options) -> list[int]:
    """The exit codes of `moco pretrain` on two ranks; `of_rank` gives options that differ by rank."""

    def work(r: int) -> None:
        try:
            with errors():
                pretrain(*args, workers=0, **(options | of_rank(r)))
        except typer.Exit as leaving:
            raise SystemExit(leaving.exit_code) from None

    return Ranks(work, world).wait()


def ended(out: Path) -> dict:
    """The last checkpoint without recipe and id of its run, and the losses and scores that were logged."""
    payload = checkpoint.read_checkpoint(checkpoint.newest_intact(out / "checkpoints"))
    values = ("step", "loss", "pretext_top1", "knn")
    records = [{name: record.get(name) for name in values} for record in RunFolder(out).metrics()]
    return {name: value for name, value in payload.items() if name not in ("recipe", "run_id")} | {"records": records}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def slowly(pictures: Path, out: Path, recipe: Recipe, **options) -> None:
    """`pretrain` with the exit code of the command; a step takes 50 ms at least."""

    class Slow(Silent):
        def live(self, *parts: str) -> None:
            time.sleep(0.05)

    try:
        with errors():
            pretrain(pictures, out, recipe=recipe, workers=0, reporter=Slow(), **options)
    except typer.Exit as leaving:
        raise SystemExit(leaving.exit_code) from None


def until_step(out: Path, step: int) -> None:
    end = time.monotonic() + 60
    while not any(record.get("step", 0) >= step for record in RunFolder(out).metrics()):
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.005)
