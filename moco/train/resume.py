"""Start or resume a run: open its folder, build the networks, check the images, restore the state. Ranks agree."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from moco.data.shards.shards import Shards
from moco.data.sources.content_sample import content_sample, same_contents
from moco.data.sources.groups import groups_of
from moco.data.sources.images import DataError, Images
from moco.data.sources.manifest import Manifest, changes_since, manifest_of, read_manifest, write_manifest
from moco.distributed import agree, on_main, share, world_size
from moco.encoders import Encoder
from moco.evaluate.monitor import Monitor
from moco.files import read_json
from moco.method import Contrast
from moco.recipe import Recipe
from moco.train.build import contrast_for, in_format, precision_of, read_init
from moco.train.checkpoint import TrainState
from moco.train.existing_folder import State
from moco.train.keep_checkpoints import prepare_for_resume
from moco.train.load_state import load_newest
from moco.train.open_run import open_run, start_run
from moco.train.plan_run import AnyJob, PretrainJob
from moco.train.rank_sync import restore_statistics
from moco.train.read_log import remove_records_after
from moco.train.reporters import Logged, Reporter
from moco.train.result_files import describe_renamed, rename_foreign_notes, report_renamed
from moco.train.run_folder import (
    RunError,
    RunFolder,
    add_start,
    check_init,
    check_init_content,
    provenance,
    record_init,
)  # fmt: skip
from moco.train.summary import plan_rows, random_queue
from moco.train.warm_start import refill
from moco.weights.content_hash import hash_of_weights
from moco.weights.errors import WeightsError
from moco.weights.own_files import read_run_id


@dataclass(frozen=True)
class StartNetworks:
    """The networks at the start of a run."""

    contrast: Contrast
    init: str | Path | None  # the weights that they start from
    messages: list[str]  # for the user: how they were built
    init_hash: str = ""  # the SHA-256 of their content


def build_networks(
    job: PretrainJob, *, model: str | nn.Module | None, init: str | Path | None, fresh: bool
) -> StartNetworks:
    """Build the networks. A run that resumes (not `fresh`) takes `init` from its own record. Writes nothing.

    Raises:
        RunError: a run that resumes has started from other weights.
    """
    if not fresh:
        given = init
        init = share(((on_main() and check_init(job.run, init)) or "").encode()).decode() or None
        if init is None and given is not None and on_main():
            _check_given_again(job, given)
    messages = random_queue(job.recipe) if fresh and init is None else []
    found = None if init is None else read_init(init, job.recipe)
    digest = "" if found is None else hash_of_weights(found)
    if init is not None and not fresh and on_main():
        check_init_content(job.run, init, digest)
    contrast = contrast_for(
        job.recipe, job.place, num_images=len(job.images), model=model, init=found, say=messages.append,
        groups=groups_of(job.images, job.recipe.data.groups),
    )  # fmt: skip
    return StartNetworks(contrast, init, messages, digest)


def _check_given_again(job: PretrainJob, init: str | Path) -> None:
    """Raise RunError if `init`, which a run with checkpoints does not read any more, has other content than before."""
    if not os.path.exists(init):
        return
    try:
        digest = hash_of_weights(read_init(init, job.recipe))
    except WeightsError as error:
        raise RunError(f"--init {init} cannot be read any more: leave --init out to continue. {error}") from None
    check_init_content(job.run, init, digest)


def start_folder(job: PretrainJob, networks: StartNetworks) -> None:
    """Start a new run in the folder on rank 0. An earlier run is removed."""
    if on_main():
        moved = start_run(job.run, job.recipe)
        record_init(job.run, networks.init, networks.messages, sha256=networks.init_hash)
        networks.messages.extend(describe_renamed(job.run, moved))


def report_start(job: PretrainJob, networks: StartNetworks, reporter: Reporter) -> Reporter:
    """Report how the networks were built, and return a reporter that also writes train.log (with the plan)."""
    if on_main():
        reporter = Logged(reporter, job.run.path / "train.log")
        reporter.note("plan", plan_rows(job.recipe, job.images, job.clock, job.place, job.run.path, time=job.time))
    for line in networks.messages:
        reporter.say(line)
    return reporter


@contextmanager
def open_run_folder(job: AnyJob) -> Iterator[State]:
    """A context in which rank 0 has the run folder open and locked. Yields the folder's state on every rank."""
    resume, overwrite = job.options.resume, job.options.overwrite
    context = open_run(job.run, job.recipe, resume=resume, overwrite=overwrite) if on_main() else nullcontext()
    with context as state:
        yield list(State)[agree(list(State).index(state) if state is not None else 0)]


def make_scorer(monitor: Monitor | None, contrast: Contrast) -> Callable[[], float]:
    """A function that returns the kNN accuracy of f_q [percent]."""

    def score() -> float:
        assert monitor is not None
        return monitor.score(get_trained_encoder(contrast))

    return score


def get_trained_encoder(contrast: Contrast) -> Encoder:
    assert isinstance(contrast.encoder, Encoder)
    return contrast.encoder


def check_data(job: AnyJob, say: Callable[[str], None]) -> str:
    """Compare the images with those at the start of the run. Returns their fingerprint (on other ranks than 0: "").

    Raises:
        DataError: they differ, and --accept-data-change was not given.
    """
    if not on_main():
        return ""
    run, file = job.run, job.run.path / "manifest.jsonl.gz"
    now = manifest_of(job.images)
    changes = changes_since(file, now) if file.exists() else _changes_by_fingerprint(run, now)
    changes += _changes_of_order(job)
    if changes and file.exists() and not _changes_of_order(job) and (note := _same_contents(job, now)):
        say(note)
        write_manifest(now, file)
        return now.fingerprint
    if changes and not job.options.accept_data_change:
        raise DataError(
            f"the images are not those that the run in {run.path} started with. {' '.join(changes)} Restore them, "
            "start a new run, or resume with --accept-data-change (the result then differs from an uninterrupted run's)"
        )
    if changes:
        say(f"resuming with other images than before. {' '.join(changes)}")
    if changes or not file.exists():
        write_manifest(now, file)
    return now.fingerprint


def describe_other_images(job: AnyJob) -> str:
    """Sentences that say how the images differ from those of a finished run; empty if they do not."""
    file = job.run.path / "manifest.jsonl.gz"
    if not on_main() or not file.exists():
        return ""
    now = manifest_of(job.images)
    changes = changes_since(file, now)
    if not changes or _same_contents(job, now):
        return ""
    return f"The images are not those that it was trained on. {' '.join(changes)} Give another --out to train on these"


def _same_contents(job: AnyJob, now: Manifest) -> str:
    """A sentence that says that the images differ from those of the last start only in their times; else empty."""
    was = _last_start(job.run).get("data_sample")
    return same_contents(was, read_manifest(job.run.path / "manifest.jsonl.gz"), now, job.images)


def _last_start(run: RunFolder) -> dict[str, Any]:
    starts = read_json(run.path / "provenance.json")
    last = starts[-1] if isinstance(starts, list) and starts else None
    return last if isinstance(last, dict) else {}


def _changes_by_fingerprint(run: RunFolder, now: Manifest) -> list[str]:
    """Changes of the images if manifest.jsonl.gz is missing: only the fingerprint in provenance.json is compared."""
    was = _last_start(run).get("data_fingerprint")
    if was in (None, now.fingerprint):
        return []
    return ["Which ones differ is not known: their list, manifest.jsonl.gz, is missing."]


def _changes_of_order(job: AnyJob) -> list[str]:
    """A sentence if the images lie in shards of other sizes than before, and the order of an epoch depends on it."""
    was = _last_start(job.run).get("shards")
    if (
        was in (None, shards_hash(job.images))
        or not isinstance(job.recipe, Recipe)
        or job.recipe.data.order != "shards"
    ):
        return []
    return ["The images lie in shards of other sizes, and data.order=shards depends on them."]


def shards_hash(images: Images) -> str | None:
    """A hash of the numbers of images in the shards; None for other images."""
    return hashlib.sha256(images.counts.tobytes()).hexdigest() if isinstance(images, Shards) else None


def restore(job: AnyJob, state: TrainState, reporter: Reporter) -> None:
    """Load the newest checkpoint that can be used into `state` on every rank, and remove what was logged after it.

    Raises:
        RunError: the checkpoint is of a run with another recipe. CheckpointError: none can be used.
    """
    run = job.run
    if on_main():
        report_renamed(run, rename_foreign_notes(run), reporter)
    payload = load_newest(run.checkpoints, state, job.recipe, say=reporter.say, run_id=read_run_id(run.path))
    if payload is not None:
        ranks = payload.get("ranks", 1)
        reporter.say(f"resuming {run.path} at step {state.clock.step} of {state.clock.total_steps}")
        if ranks == world_size():
            assert isinstance(state.model, nn.Module)
            restore_statistics(state.model, payload.get("statistics", {}))
        else:
            reporter.say(f"resumed with {world_size()} ranks instead of {ranks}: the results will not be bit-identical")
        if on_main():
            _report_unlisted(run, prepare_for_resume(run.checkpoints, state.clock.step), reporter)
            with suppress(OSError):  # the next checkpoint records it
                run.record_first_checkpoint(state.clock.step, run_id=payload.get("run_id"))
    if on_main():
        moved = remove_records_after(run.metrics_file, -1 if payload is None else state.clock.step)
        if moved is not None:
            reporter.say(
                f"caution: {run.metrics_file} has lines that a run does not write. They were moved to {moved} beside it"
            )


def _report_unlisted(run: RunFolder, names: list[str], reporter: Reporter) -> None:
    if names:
        reporter.say(
            f"caution: MANIFEST.json does not list {', '.join(names)} in {run.checkpoints}, so they may not be of this "
            "run. They are not used or removed. If the run needs such a name, it renames the file to NAME.other"
        )


def record_start(job: AnyJob, fingerprint: str) -> None:
    """Rank 0 adds this start of the run to provenance.json."""
    if on_main():
        facts = provenance(device=job.place, workers=job.workers, images=job.images, data=fingerprint)
        add_start(
            job.run,
            job.clock.step,
            facts | {"data_sample": content_sample(job.images), "shards": shards_hash(job.images)},
        )


def fill_queue(job: PretrainJob, networks: StartNetworks, reporter: Reporter) -> None:
    """Fill the queue by encoding images, if the run starts from weights without a queue."""
    if networks.init is None or job.clock.step > 0:
        return
    filled = refill(
        networks.contrast, lambda steps: in_format(job.loader(steps), job.recipe), job.recipe,
        steps_per_epoch=job.clock.steps_per_epoch, precision=precision_of(job.recipe, job.place),
    )  # fmt: skip
    for line in filled:
        reporter.say(line)
