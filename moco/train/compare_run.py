"""At the end of a run: is its encoder better than baselines? Short, and never a failure of the run."""

import copy
import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moco.comparison.on_machine import cheapest_on_machine, weights_on_machine
from moco.comparison.short import TooFewError, compare_shortly, compare_views_shortly
from moco.data.remote.urls import redact
from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError
from moco.data.sources.split import Split, split_sources
from moco.encoders import Encoder
from moco.evaluate.features import Pretrained, load_pretrained
from moco.files import read_json, write_text
from moco.recipe import RecipeError
from moco.text import duration, message_of
from moco.train.plan_run import PretrainJob
from moco.train.reporters import Reporter
from moco.train.result_files import write_result
from moco.train.run_folder import RunFolder, check_init_content
from moco.weights.content_hash import hash_of_weights
from moco.weights.encoder_folder import Config, WeightsError
from moco.weights.load import read_weights

NAME = "compare.json"
SHORTEST = 60.0  # [s] of training: a shorter run is a trial
SHARE, LEAST, MOST = 0.05, 5.0, 120.0  # of the time of training; [s] at least and at most
FOR_OTHERS = 10.0  # [s] at least, for an encoder that is on the machine: its library alone takes seconds to import
INIT = "init"  # the name of the weights that the run started from


def compare_at_end(job: PretrainJob, encoder: Encoder, reporter: Reporter, *, seconds: float) -> None:
    """Compare the encoder of a finished run with baselines, if there are labels or an encoder to compare with.

    Writes compare.json, and reports the verdict.

    Changes no other file of the run. Whatever fails is reported, and the run does not fail.

    Args:
        seconds: that this process has trained. Those of processes that were resumed are in metrics.jsonl.
    """
    trained = max(seconds, seconds_of(job.run.metrics()))
    if not job.options.compare or trained < SHORTEST:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            _compare(job, encoder, reporter, seconds=min(max(SHARE * trained, LEAST), MOST))
    except TooFewError as reason:
        reporter.say(f"not compared with baselines: {reason}. {_command(job)}")
    except Exception as error:  # any error: the encoder is saved, and a missing comparison must not fail the run
        reporter.say(
            f"caution: not compared with baselines: {type(error).__name__}: {message_of(error)}. {_command(job)}"
        )


def seconds_of(records: Sequence[Mapping[str, Any]]) -> float:
    """[s] of training in all processes of a run. `seconds` in its records begins at 0 in each process."""
    total = last = 0.0
    for record in records:
        now = record.get("seconds")
        if isinstance(now, int | float) and math.isfinite(now):
            total, last = total + max(now if now < last else now - last, 0), now
    return total


def _command(job: PretrainJob) -> str:
    data = job.options.eval_data or "LABELLED_FOLDER"
    return f"The command for it: moco compare {shlex.quote(str(job.run.path))} {shlex.quote(redact(str(data)))}"


def _compare(job: PretrainJob, encoder: Encoder, reporter: Reporter, *, seconds: float) -> None:
    split, whose = _labelled(job)
    start = time.monotonic()
    others, notes = _baselines(job, encoder, seconds=seconds)
    if split is None and not others:
        return
    reporter.say(f"comparing the encoder with baselines, for about {duration(seconds)} (--no-compare leaves it out)")
    config = Config(encoder=encoder.spec, num_features=encoder.num_features, data=job.recipe.data)
    pretrained = Pretrained(encoder, config, job.place, "this run")
    left = max(seconds / 2, seconds - (time.monotonic() - start))
    if split is None:
        found = compare_views_shortly(pretrained, job.images, others, seconds=left, workers=job.workers)
    else:
        found = compare_shortly(pretrained, split, others, seconds=left, workers=job.workers)
    content = found.to_dict() | {"labels": whose or "none", "notes": [*found.notes, *notes]}
    text = json.dumps(content, indent=1) + "\n"
    if not write_result(job.run, NAME, lambda file: write_text(file, text)):
        reporter.say(f"caution: {job.run.path / NAME} was not written: a file of that name exists, and stays")
    for note in notes:
        reporter.say(note)
    reporter.say(f"{found.sentence} ({found.images:,} {f'test images, {whose}' if found.labels else 'images'})")


def _labelled(job: PretrainJob) -> tuple[Split | None, str]:
    """Labelled images and a description of them: those of --eval-data, or the run's own in class folders."""
    if job.options.eval_data is not None:
        return split_sources(job.options.eval_data, groups=job.recipe.data.groups), "labels of --eval-data"
    if not isinstance(job.images, Folder) or job.images.labels is None:  # labels of a Dataset may take long
        return None, ""
    try:
        split = split_sources(job.images, groups=job.recipe.data.groups)
    except DataError:  # the folders are splits, or there are too few images
        return None, ""
    return split, f"the run's own images, their {len(split.train.classes)} folders as classes"


def _baselines(job: PretrainJob, encoder: Encoder, *, seconds: float) -> tuple[dict[str, Pretrained], list[str]]:
    """The weights that the run started from, and in `seconds` enough one encoder that is on this machine; and notes."""
    others: dict[str, Pretrained] = {}
    notes: list[str] = []
    noted = read_json(job.run.path / "init.json")
    init = noted.get("weights") if isinstance(noted, dict) else None
    if isinstance(init, str):
        try:
            others[INIT] = load_start(job.run, init, encoder, job.place)
        except (RecipeError, OSError) as error:
            notes.append(f"not compared with the weights that it started from, {init}: {message_of(error)}")
    name = cheapest_on_machine(job.recipe.encoder.name, other_than=init) if seconds >= FOR_OTHERS else None
    if name is not None:
        others[name] = load_pretrained(name, device=job.place)
        if more := [one for one in weights_on_machine() if one not in (name, init)]:
            notes.append(f"also on this machine, for moco compare --baselines: {', '.join(more[:5])}")
    return others, notes


def load_start(run: RunFolder, init: str, encoder: Encoder, device: torch.device) -> Pretrained:
    """The encoder that a run started from, by the weights' own settings for images if they have any.

    Raises:
        WeightsError: the weights cannot be read any more. RunError: they have changed since.
    """
    check_init_content(run, init, hash_of_weights(read_weights(init, size=encoder.size, whole=True)))
    if encoder.spec.name == "custom":
        return load_pretrained(init, model=copy.deepcopy(encoder.backbone), device=device)
    try:
        return load_pretrained(init, device=device)
    except WeightsError:  # a file that does not name its network
        return load_pretrained(init, architecture=encoder.spec, device=device)
