"""Runs on a device by the commands that users type, a kill among them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures

from moco.train import checkpoint
from tests.gpu.helpers import GPU, PYTHONPATH

KILLED_AT = """
import sys, torch
from moco import recipes
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from tests.ranks.helpers import AtStep, kill
images, out, device, step, exact = sys.argv[1:]
torch.backends.cudnn.benchmark = False
torch.backends.cudnn.deterministic = exact == "exact"
torch.use_deterministic_algorithms(exact == "exact", warn_only=True)
recipe = recipes.named("demo").but("tiny", {"encoder.width": 0.25, "encoder.dim": 16, "data.size": 32,
    "data.eval_resize": 32, "method.size": 20, "optim.batch_size": 8, "optim.epochs": 4})
pretrain(images, out, recipe=recipe, device=device, save_every=3, diagnose_every=6, reporter=AtStep(int(step), kill(9)))
"""


def run(*command: str | Path, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == code, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout


def weights(out: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.newest_intact(out / "checkpoints")
    return {name: x.cpu() for name, x in checkpoint.read_checkpoint(newest)["state"]["model"].items()}


@pytest.mark.parametrize(
    ("device", "exact"),  # on the CPU with the usual algorithms: tests/faults/killed_runs.py
    [(torch.device("cpu"), "exact"), *(pytest.param(torch.device("cuda"), x, marks=GPU) for x in ("exact", "usual"))],
)
def test_a_killed_run_resumes_to_the_state_of_one_that_was_not(exact, device, tmp_path, record_property):
    """Bit for bit with deterministic algorithms; how much differs without them is recorded."""
    images = make_pictures(tmp_path / "images", 40)
    run("-c", KILLED_AT, images, tmp_path / "whole", device, 0, exact)
    run("-c", KILLED_AT, images, tmp_path / "killed", device, 9, exact, code=-signal.SIGKILL)
    run("-c", KILLED_AT, images, tmp_path / "killed", device, 0, exact)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    different = [name for name, x in expected.items() if not torch.equal(x, found[name])]
    record_property("tensors that differ", f"{len(different)} of {len(expected)}")
    if exact == "exact":
        assert not different


def test_the_commands_of_the_readme_run_on_the_device(device, tmp_path):
    """pretrain with kNN scores in bf16 and fp16, diagnose, eval, embed. Tiny, because CPUs take seconds for fp16."""
    images = make_pictures(tmp_path / "images", 48, classes=4)
    common = ["--device", device, "--epochs", "2", "--batch-size", "8"]
    small = ["--set", "encoder.width=0.0625", "--set", "data.size=16", "--set", "data.eval_resize=16"]
    for precision in ("bf16", "fp16"):
        run("-m", "moco", "pretrain", images, "--out", tmp_path / precision, *common, "--model", "resnet18",
            "--precision", precision, "--eval-data", images, *small)  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "bf16" / "metrics.jsonl").read_text().splitlines()]
    assert any(record.get("knn") is not None for record in records)
    run("-m", "moco", "diagnose", tmp_path / "bf16", "--data", images, "--device", device)
    run("-m", "moco", "eval", tmp_path / "bf16", images, "--device", device)
    run("-m", "moco", "embed", tmp_path / "bf16", images, "--device", device, "--to", tmp_path / "features.npy")
    assert len(np.load(tmp_path / "features.npy")) == 48
