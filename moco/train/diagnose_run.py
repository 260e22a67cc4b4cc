"""`moco diagnose`: measure the checkpoints of a run, and derive verdicts from them and from its log."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moco.data.sources.open import Sources, open_images
from moco.device import pick_device, workers_for
from moco.diagnose.history import measure_waiting_share, measurements
from moco.diagnose.measure import Measurement, bn_group_size, measure_signals, update_size
from moco.diagnose.probe import ProbeSet, make_probe
from moco.diagnose.verdicts import Diagnosis, Evidence, judge_evidence
from moco.files import read_json, write_json
from moco.method import Contrast
from moco.recipe import Recipe
from moco.text import message_of
from moco.train.build import precision_of, threads
from moco.train.optim import optimizer_for
from moco.train.reporters import Reporter, Silent
from moco.train.restore_networks import build_untrained, find_intact_steps, read_state
from moco.train.run_folder import RunError, RunFolder, check_is_run

PROBE = 1024  # images of the probe set
CHECKPOINTS = 5  # that are measured, at most: the newest


def diagnose_run(
    path: str | Path,
    data: Sources | None = None,
    *,
    model: nn.Module | None = None,
    device: str = "auto",
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> tuple[Diagnosis, dict[str, Any]]:
    """The diagnosis of a run, and the content of diagnosis.json, which is written into its folder.

    Args:
        data: the images of the run. Without them, the measurements during training are used.
        model: the module of a run with a backbone of your own.

    Raises:
        RunError: no run, or nothing to diagnose. CheckpointError: all checkpoints are damaged. DataError: no images.
    """
    run = RunFolder(Path(path))
    check_is_run(run.path)
    records, recipe = run.metrics(), run.recipe()
    measured = measurements(records)
    if data is not None:
        measured += _measure_checkpoints(
            run, recipe, data, model=model, device=pick_device(device), workers=workers_for(workers),
            reporter=reporter or Silent(),
        )  # fmt: skip
    if not measured:
        raise RunError(f"{run.path} has no measurements from training: name its images with --data")
    total = max(_total_steps(recipe, measured[-1][1]), measured[-1][0])
    found = judge_evidence(Evidence(measured, total, measure_waiting_share(records)))
    content = {"run": str(run.path), **found.to_dict(), "measurement": measured[-1][1].to_dict()}
    _write(run.path / "diagnosis.json", content, reporter or Silent())
    return found, content


def _write(file: Path, content: dict[str, Any], reporter: Reporter) -> None:
    """Write diagnosis.json. A file that is no diagnosis stays; a folder that cannot be written is no error."""
    there = read_json(file)
    if os.path.lexists(file) and not (isinstance(there, dict) and {"run", "measurement"} <= there.keys()):
        reporter.say(f"caution: {file} was not written: another file of that name exists, and stays")
        return
    try:
        write_json(file, content)
    except OSError as error:
        reporter.say(f"caution: {file} was not written: {message_of(error)}")


def _total_steps(recipe: Recipe, one: Measurement) -> int:
    return recipe.optim.total_steps(one.images)


def _measure_checkpoints(
    run: RunFolder, recipe: Recipe, data: Sources, *, model: nn.Module | None, device: torch.device, workers: int,
    reporter: Reporter,
) -> list[tuple[int, Measurement]]:  # fmt: skip
    """Measure the networks before the first step, and the newest intact checkpoints, in order."""
    steps = find_intact_steps(run, count=CHECKPOINTS)
    if not steps:
        raise RunError(f"{run.path} has no checkpoint: nothing can be measured. Without --data, its log is used")
    images = open_images(data)
    probe = make_probe(images, recipe.data, count=PROBE, device=device, workers=workers)
    contrast, measured = (
        build_untrained(recipe, device, num_images=len(images), model=model),
        list[tuple[int, Measurement]](),
    )
    with threads(recipe.compute.threads):
        if not (run.path / "init.json").exists():  # else it started from weights that may have changed
            measured.append((0, _measure(contrast, probe, recipe, device, ranks=1, update=None)))
        for number, step in enumerate(steps, start=1):
            reporter.live(f"measuring checkpoint {number} of {len(steps)}")
            payload = read_state(run, step)
            contrast.load_state_dict(payload["state"]["model"])
            optimizer = optimizer_for(contrast, recipe.optim)
            optimizer.load_state_dict(payload["state"]["optimizer"])
            ranks = payload.get("ranks", 1)
            one = _measure(contrast, probe, recipe, device, ranks=ranks, update=update_size(optimizer))
            measured.append((step, one))
    return measured


def _measure(
    contrast: Contrast, probe: ProbeSet, recipe: Recipe, device: torch.device, *, ranks: int, update: float | None
) -> Measurement:
    return measure_signals(
        contrast, probe, batch=recipe.optim.batch_size, group=bn_group_size(recipe, ranks), update=update,
        precision=precision_of(recipe, device),
    )  # fmt: skip
