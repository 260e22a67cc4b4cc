"""How a run begins, anew or where it stopped: its recipe, folder, images and state, the same on all ranks."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import DataError, Images
from moco.data.sources.manifest import changes_since, manifest_of, write_manifest
from moco.distributed import agree, on_main, rank, share, world_size
from moco.encoders import Encoder
from moco.evaluate.monitor import Monitor
from moco.method import Contrast
from moco.recipe import Recipe, RecipeError
from moco.train import checkpoint
from moco.train.build import contrast_for, scaler_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.console import Logged, Reporter
from moco.train.folder_state import State
from moco.train.open_run import open_run, start_run
from moco.train.optim import optimizer_for
from moco.train.rank_sync import put_back
from moco.train.run_folder import RunFolder, check_init, note_init
from moco.train.summary import plan, random_queue


@dataclass(frozen=True)
class Job:
    """What a run works with, and where."""

    images: Images
    recipe: Recipe
    clock: Clock
    place: torch.device
    workers: int
    run: RunFolder
    processes: bool = False  # the workers are

    def state(self, contrast: Contrast) -> TrainState:
        optimizer = optimizer_for(contrast, self.recipe.optim)
        return TrainState(contrast, optimizer, self.clock, scaler_for(self.recipe, self.place))

    def loader(self, max_bad: float | None, steps: range) -> ViewLoader:
        """The mini-batches of `steps`, this rank's share of each."""
        file = self.run.path / "bad_images.csv" if on_main() else None
        return ViewLoader(
            self.images, self.recipe.data, batch_size=self.recipe.optim.batch_size, seed=self.recipe.seed,
            steps=steps, rank=rank(), world_size=world_size(), workers=self.workers, device=self.place,
            quarantine=Quarantine(file, max_bad, len(self.images)), processes=self.processes,
            compiled=self.recipe.compute.compile,
        )  # fmt: skip


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


def check_device(asked: str, place: torch.device) -> None:
    """Raises RecipeError for a device that several ranks cannot work on."""
    if world_size() > 1 and (place.type == "mps" or ":" in asked):
        raise RecipeError(
            f"--device expects cpu or cuda where several ranks work ({world_size()} here; each takes a GPU of its "
            f"own), got {place if place.type == 'mps' else asked}"
        )


def shared_recipe(make: Callable[[], Recipe]) -> Recipe:
    """Rank 0's recipe: what it leaves open depends on the run folder, and on the machine."""
    return Recipe.from_json(share(make().to_json().encode() if on_main() else b"").decode())


def clock_of(recipe: Recipe, num_images: int) -> Clock:
    steps_per_epoch = num_images // recipe.optim.batch_size
    return Clock(steps_per_epoch, max(1, round(recipe.optim.epochs * steps_per_epoch)))


@contextmanager
def opened(out: Path, recipe: Recipe, *, resume: str, overwrite: bool) -> Iterator[State]:
    """The run folder, open, and what is in it. It is rank 0's alone: no other rank looks into it."""
    with open_run(out, recipe, resume=resume, overwrite=overwrite) if on_main() else nullcontext() as state:
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


def check_data(run: RunFolder, images: Images, *, accept_change: bool, say: Callable[[str], None]) -> str:
    """The images' fingerprint. Raises DataError when they are not those that the run began with; rank 0 looks."""
    if not on_main():
        return ""
    file, now = run.path / "manifest.jsonl.gz", manifest_of(images)
    changes = changes_since(file, now) if file.exists() else []
    if changes and not accept_change:
        raise DataError(
            f"the images are not those that the run in {run.path} began with. {' '.join(changes)} Put them back, start "
            "a new run, or go on with --accept-data-change (it is then not what one undisturbed run would have been)"
        )
    if changes:
        say(f"going on with other images than before. {' '.join(changes)}")
    if changes or not file.exists():
        write_manifest(now, file)
    return now.fingerprint


def restore(run: RunFolder, state: TrainState, reporter: Reporter) -> None:
    """Put the newest whole checkpoint into `state`, on every rank, and forget what was logged after it."""
    content = b""
    if on_main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = checkpoint.newest(run.checkpoints)
        for warning in caught:
            reporter.say(f"caution: {warning.message}")
        content = b"" if path is None else path.read_bytes()
    content = share(content)
    if content:
        payload = checkpoint.load(io.BytesIO(content))
        state.load_state_dict(payload["state"])
        ranks = payload.get("ranks", 1)
        reporter.say(f"resuming {run.path} at step {state.clock.step} of {state.clock.total_steps}")
        if ranks == world_size():
            assert isinstance(state.model, nn.Module)
            put_back(state.model, payload.get("statistics", {}))
        else:
            reporter.say(f"began with {ranks} ranks, goes on with {world_size()}: allowed, but not the same bits")
        if on_main():
            checkpoint.forget_after(run.checkpoints, state.clock.step)
            with suppress(OSError):  # it is noted with the next checkpoint
                run.note_saved(state.clock.step)
    if on_main():
        run.forget_after(state.clock.step if content else -1)
