"""How a run begins, anew or where it stopped: its folder, networks, images and state, the same on all ranks."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from moco.data.sources.images import DataError
from moco.data.sources.manifest import Manifest, changes_since, manifest_of, write_manifest
from moco.distributed import agree, on_main, share, world_size
from moco.encoders import Encoder
from moco.evaluate.monitor import Monitor
from moco.files import read_json
from moco.method import Contrast
from moco.recipe import Recipe, diff
from moco.train import checkpoint
from moco.train.build import contrast_for, in_format, precision_of
from moco.train.checkpoint import TrainState
from moco.train.console import Logged, Reporter
from moco.train.folder_state import State
from moco.train.job import Job
from moco.train.open_run import open_run, start_run
from moco.train.rank_sync import put_back
from moco.train.run_folder import RunError, RunFolder, check_init, note_init, note_start, provenance
from moco.train.summary import plan, random_queue
from moco.train.warm_start import refill


@dataclass(frozen=True)
class Networks:
    """The networks as they are at the start of a run."""

    contrast: Contrast
    init: str | Path | None  # the weights that they start from
    said: list[str]  # what there is to say of them


def build_networks(job: Job, *, model: str | nn.Module | None, init: str | Path | None, fresh: bool) -> Networks:
    """The networks of a new run, or of one that goes on, which knows what weights it starts from. Writes nothing."""
    if not fresh:
        init = share(((on_main() and check_init(job.run, init)) or "").encode()).decode() or None
    said = random_queue(job.recipe) if fresh and init is None else []
    contrast = contrast_for(job.recipe, job.place, num_images=len(job.images), model=model, init=init, say=said.append)
    return Networks(contrast, init, said)


def start_folder(job: Job, networks: Networks) -> None:
    """Make the folder ready for a new run: what was there is removed. Rank 0 does."""
    if on_main():
        start_run(job.run, job.recipe)
        note_init(job.run, networks.init, networks.said)


def report_start(job: Job, networks: Networks, reporter: Reporter) -> Reporter:
    """Write the plan into the run's log, say what weights it starts from, and give whom to report to from now on."""
    if on_main():
        reporter = Logged(reporter, job.run.path / "train.log")
        reporter.note("plan", plan(job.recipe, job.images, job.clock, job.place, job.run.path))
    for line in networks.said:
        reporter.say(line)
    return reporter


@contextmanager
def opened(job: Job) -> Iterator[State]:
    """Open the run folder for this run, and give what is in it. It is rank 0's alone: no other rank looks into it."""
    resume, overwrite = job.options.resume, job.options.overwrite
    ours = open_run(job.run.path, job.recipe, resume=resume, overwrite=overwrite) if on_main() else nullcontext()
    with ours as state:
        yield list(State)[agree(list(State).index(state) if state is not None else 0)]


def scorer(monitor: Monitor | None, contrast: Contrast) -> Callable[[], float]:
    """The kNN accuracy of f_q as it is, in percent."""

    def score() -> float:
        assert monitor is not None
        return monitor.score(encoder_of(contrast))

    return score


def encoder_of(contrast: Contrast) -> Encoder:
    assert isinstance(contrast.encoder, Encoder)
    return contrast.encoder


def check_data(job: Job, say: Callable[[str], None]) -> str:
    """The images' fingerprint. Raises DataError when they are not those that the run began with; rank 0 looks."""
    if not on_main():
        return ""
    run, file = job.run, job.run.path / "manifest.jsonl.gz"
    now = manifest_of(job.images)
    changes = changes_since(file, now) if file.exists() else _changes_by_fingerprint(run, now)
    if changes and not job.options.accept_data_change:
        raise DataError(
            f"the images are not those that the run in {run.path} began with. {' '.join(changes)} Put them back, start "
            "a new run, or go on with --accept-data-change (it is then not what one undisturbed run would have been)"
        )
    if changes:
        say(f"going on with other images than before. {' '.join(changes)}")
    if changes or not file.exists():
        write_manifest(now, file)
    return now.fingerprint


def _changes_by_fingerprint(run: RunFolder, now: Manifest) -> list[str]:
    """What is known of changes where the list of the images is gone: provenance.json has its fingerprint."""
    starts = read_json(run.path / "provenance.json")
    last = starts[-1] if isinstance(starts, list) and starts else None
    was = last.get("data_fingerprint") if isinstance(last, dict) else None
    if was in (None, now.fingerprint):
        return []
    return ["Their list, manifest.jsonl.gz, is gone, so which ones differ is not known."]


def restore(job: Job, state: TrainState, reporter: Reporter) -> None:
    """Put the newest whole checkpoint into `state`, on every rank, and forget what was logged after it.

    Raises:
        RunError: the checkpoint is of a run with another recipe.
    """
    run, content = job.run, b""
    if on_main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = checkpoint.newest_intact(run.checkpoints)
        for warning in caught:
            reporter.say(f"caution: {warning.message}")
        content = b"" if path is None else path.read_bytes()
    content = share(content)
    if content:
        payload = checkpoint.read_checkpoint(io.BytesIO(content))
        _check_recipe_of_checkpoint(job, payload)
        state.load_state_dict(payload["state"])
        ranks = payload.get("ranks", 1)
        reporter.say(f"resuming {run.path} at step {state.clock.step} of {state.clock.total_steps}")
        if ranks == world_size():
            assert isinstance(state.model, nn.Module)
            put_back(state.model, payload.get("statistics", {}))
        else:
            reporter.say(f"began with {ranks} ranks, goes on with {world_size()}: allowed, but not the same bits")
        if on_main():
            _report_unlisted(run, checkpoint.settle(run.checkpoints, state.clock.step), reporter)
            with suppress(OSError):  # it is noted with the next checkpoint
                run.note_saved(state.clock.step)
    if on_main():
        run.forget_after(state.clock.step if content else -1)


def _report_unlisted(run: RunFolder, names: list[str], reporter: Reporter) -> None:
    if names:
        reporter.say(
            f"caution: {', '.join(names)} in {run.checkpoints}: not listed in MANIFEST.json, so perhaps not of this "
            "run. Left alone. A file whose name the run needs is renamed to NAME.other"
        )


def _check_recipe_of_checkpoint(job: Job, payload: dict[str, Any]) -> None:
    """Raises RunError for the checkpoint of another run, and where recipe.json was changed since it was written."""
    changes = diff(Recipe.from_json(payload["recipe"]), job.recipe)
    if changes:
        listed = "\n  ".join(changes)
        raise RunError(
            f"the newest checkpoint in {job.run.checkpoints} is of a run with another recipe than this one's "
            f"recipe.json. Different:\n  {listed}\nPut this run's own checkpoints or recipe.json back from a copy, or "
            "name another --out"
        )


def note_this_start(job: Job, fingerprint: str) -> None:
    """Add this start of the run to provenance.json: rank 0 does."""
    if on_main():
        facts = provenance(device=job.place, workers=job.workers, images=job.images, data=fingerprint)
        note_start(job.run, job.clock.step, facts)


def fill_queue(job: Job, networks: Networks, reporter: Reporter) -> None:
    """Fill the queue of a run that starts from weights without one, by a forward pass over images."""
    if networks.init is None or job.clock.step > 0:
        return
    filled = refill(
        networks.contrast, lambda steps: in_format(job.loader(steps), job.recipe), job.recipe,
        steps_per_epoch=job.clock.steps_per_epoch, precision=precision_of(job.recipe, job.place),
    )  # fmt: skip
    for line in filled:
        reporter.say(line)
