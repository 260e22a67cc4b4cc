"""Run folders for tests, made without training."""

import json
from pathlib import Path

import torch

from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.train.existing_folder import State
from moco.train.open_run import open_run, start_run
from moco.train.run_folder import FINISHED, RunFolder, add_start, record_init


class Box:
    """A state of a few numbers."""

    def state_dict(self) -> dict:
        return {"x": torch.zeros(3)}

    def load_state_dict(self, state_dict: dict) -> None: ...


def begin(out: Path, recipe: Recipe, **options) -> State:
    """What `pretrain` does to the folder before the first step. Gives what was there."""
    with open_run(RunFolder(out), recipe, **{"resume": "auto"} | options) as there:
        if not there.started:
            run = RunFolder(out)
            start_run(run, recipe)
            record_init(run, "w.pth", ["read"])
            add_start(run, 0, {"versions": {}})
    return there


def whole(out: Path, recipe: Recipe, *, steps: int = 4, saves: bool = True, finishes: bool = True) -> RunFolder:
    """A run with everything that a run can leave."""
    begin(out, recipe)
    run = RunFolder(out)
    run.log(*({"step": step, "epoch": 0.0, "loss": 1.0} for step in range(1, steps + 1)))
    if saves:
        checkpoint.save(run.checkpoints, TrainState(Box(), Box(), Clock(10, 10, steps)), recipe=recipe.to_json())
        run.record_first_checkpoint(steps)
    if finishes:
        names = ("train.log", "bad_images.csv", "manifest.jsonl.gz", "scores.json", "curves.png", "neighbours.png")
        nan = ("nan/step_00000002/facts.json", "nan/step_00000002/checkpoint.pt")
        encoder = ("encoder/model.safetensors", "encoder/config.json", "encoder/README.md")
        for name in (*names, *nan, *encoder):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(b"{}")
        (out / "finished.json").write_text(json.dumps(dict.fromkeys(FINISHED, 1)))
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
