"""Run folders for tests, made without training."""

import gzip
import hashlib
import json
from pathlib import Path

import torch

from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.train.existing_folder import State
from moco.train.open_run import open_run, start_run
from moco.train.run_folder import FINISHED, RunFolder, add_start, record_init
from moco.weights.own_files import read_run_id

ME = "momentum-contrast"
RESULTS = ("encoder/model.safetensors", "encoder/config.json", "scores.json", "curves.png", "neighbours.png")


class SmallState:
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
        state, run_id = TrainState(SmallState(), SmallState(), Clock(10, 10, steps)), read_run_id(out)
        checkpoint.save(run.checkpoints, state, recipe=recipe.to_json(), run_id=run_id)
        run.record_first_checkpoint(steps)
    if finishes:
        facts = {"step": 2, "not_finite": ["loss"], "image_ids": [0], "random_numbers": ""}
        files = {
            "train.log": b"", "bad_images.csv": b'"name","reason"\n', "nan/step_00000002/facts.json": as_bytes(facts),
            "manifest.jsonl.gz": gzip.compress(as_bytes(["a.png", 1, 1])), "report.json": as_bytes({"made_by": ME}),
            "report.html": f'<meta name="generator" content="{ME} report">'.encode(),
            "diagnosis.json": as_bytes({"run": "", "measurement": {}}),
        }  # fmt: skip
        if saves:
            files["nan/step_00000002/checkpoint.pt"] = (
                run.checkpoints / checkpoint.checkpoint_name(steps)
            ).read_bytes()
        results = dict.fromkeys((*RESULTS, "encoder/README.md"), b"{}")
        run.record_results({name: hashlib.sha256(content).hexdigest() for name, content in results.items()})
        for name, content in (files | results).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        (out / "finished.json").write_text(json.dumps(dict.fromkeys(FINISHED, 1)))
    return run


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def sign(folder, name: str) -> None:
    """List the file in the manifest, with its present SHA-256."""
    entries = json.loads((folder / "MANIFEST.json").read_text())
    entries = [one for one in entries if one["name"] != name]
    content = (folder / name).read_bytes()
    entry = {"name": name, "step": int(name[5:13]), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps([*entries, entry]))
