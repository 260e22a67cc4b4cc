"""`pretrain`: from images to a run folder with an encoder in it. Makes the objects, then lets Algorithm 1 run."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from moco.data.images import DataError, Images
from moco.data.loader import ViewLoader
from moco.data.manifest import compare, manifest_of, read_manifest, write_manifest
from moco.data.quarantine import Quarantine
from moco.distributed import rank, world_size
from moco.encoders import Encoder
from moco.encoders.weights import save_encoder
from moco.evaluate.device import default_workers, pick_device
from moco.evaluate.features import Pretrained, load
from moco.evaluate.monitor import monitor_for
from moco.files import write_text
from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.boxes import closing, plan
from moco.train.checkpoint import Clock, TrainState
from moco.train.console import Logged, Reporter, Silent
from moco.train.loop import train
from moco.train.optim import optimizer_for
from moco.train.run import RunError, RunFolder, begin, open_run, provenance
from moco.train.setup import (
    Sources,
    changes_of,
    check_fits,
    contrast_for,
    images_of,
    in_format,
    precision_of,
    resolve,
    scaler_for,
    threads,
)  # fmt: skip
from moco.train.watch import Watch, stop_on_signals, summary


@dataclass(frozen=True)
class Run:
    """A run that has ended: its folder, and what `moco.load` makes of it."""

    path: Path
    recipe: Recipe
    model: str | nn.Module | None = None  # what was given for `model`

    def encoder(self) -> Pretrained:
        return load(self.path, model=self.model if isinstance(self.model, nn.Module) else None)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return RunFolder(self.path).metrics()


def pretrain(
    data: Sources,
    out: str | Path,
    *,
    recipe: str | Recipe = "auto",
    model: str | nn.Module | None = None,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    seed: int | None = None,
    precision: str | None = None,
    init: str | Path | None = None,
    eval_data: str | Path | None = None,
    eval_every: int | None = None,
    resume: str = "auto",
    overwrite: bool = False,
    accept_data_change: bool = False,
    device: str = "auto",
    workers: int | None = None,
    save_every: int | None = None,
    max_bad: float | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Pre-train an encoder on images by Momentum Contrast.

    Args:
        data: folders or list files with images, or a torch Dataset of images. Labels, if any, are not looked at.
        out: the run folder; see `moco.train.run`.
        recipe: a name of `moco.recipes`, "auto" (MoCo v2 fitted to the images), the path of a recipe.json, or a Recipe.
        model: the encoder's name ("torchvision/resnet50", "timm/convnext_tiny", ...), or a module of your own.
        epochs, seed, precision, settings: changes to the recipe; `settings` by dotted field name.
        init: weights that f_q, and f_k as its copy, start from: anything that `moco.load` reads.
        eval_data: labelled images for a kNN score during training, every `eval_every` epochs.
        resume: "auto" continues the run that is in `out`; "never" refuses one; "must" demands one.
        accept_data_change: continue though images were added, removed or changed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: threads that read images; None: one a core. Does not change the result.
        save_every: steps between checkpoints; None: a minute.
        max_bad: how many unreadable images are too many (below 1: a share); None: 0.1 %, at least 10.
        dry_run: show the plan and stop.

    Raises:
        RecipeError: a recipe that cannot run, or a folder that cannot be used.
        DataError: no images, too many unreadable ones, or others than when the run began.
        Stopped: a signal came; the state is saved. Diverged: the loss is not finite any more.
    """
    reporter = reporter or Silent()
    chosen = pick_device(device)
    images = images_of(data)
    changes = changes_of({"optim.epochs": epochs, "seed": seed, "compute.precision": precision}, settings)
    stored = None if overwrite else stored_recipe(Path(out))
    resolved = resolve(recipe, images, chosen, model=model, changes=changes, stored=stored)
    check_fits(resolved, len(images))
    clock = Clock(len(images) // resolved.optim.batch_size, 0)
    clock.total_steps = resolved.optim.epochs * clock.steps_per_epoch
    out, workers = Path(out), default_workers() if workers is None else workers
    reporter.box("plan", plan(resolved, images, clock, chosen, out))
    if dry_run:
        return Run(out, resolved, model)
    with (
        open_run(out, resolved, resume=resume, overwrite=overwrite) as run,
        stop_on_signals() as stop,
        threads(resolved.compute.threads),
    ):
        fresh = overwrite or not run.begun
        if run.finished and not fresh:
            reporter.say(f"{out} is finished already: nothing to train (--overwrite starts again)")
            return Run(out, resolved, model)
        monitor = None if eval_data is None else monitor_for(eval_data, resolved.data, device=chosen, workers=workers)
        said: list[str] = []
        start_from = init if fresh else check_init(run, init)
        contrast = contrast_for(resolved, chosen, model=model, init=start_from, say=said.append)
        if fresh:  # from here on nothing is wrong with what was asked for
            begin(run, resolved)
            note_init(run, init, said)
        reporter = Logged(reporter, run.path / "train.log")
        reporter.note("plan", plan(resolved, images, clock, chosen, out))
        for line in said:
            reporter.say(line)
        fingerprint = check_data(run, images, accept_change=accept_data_change, say=reporter.say)
        optimizer = optimizer_for(contrast.encoder, resolved.optim, scaled=resolved.compute.precision == "fp16")
        state = TrainState(contrast, optimizer, clock, scaler_for(resolved, chosen))
        encoder = contrast.encoder
        assert isinstance(encoder, Encoder)
        restore(run, state, reporter)
        note_start(run, clock.step, provenance(device=chosen, workers=workers, images=len(images), data=fingerprint))
        quarantine = Quarantine(run.path / "bad_images.csv", max_bad=max_bad, total=len(images))
        loader = ViewLoader(
            images, resolved.data, batch_size=resolved.optim.batch_size, seed=resolved.seed,
            steps=range(clock.step, clock.total_steps), rank=rank(), world_size=world_size(), workers=workers,
            device=chosen, quarantine=quarantine,
        )  # fmt: skip
        watch = Watch(
            run=run, recipe=resolved, reporter=reporter, stop=stop, save_every=save_every,
            log_every=max(1, min(50, clock.total_steps // 500)),
            eval_every=eval_every or max(1, resolved.optim.epochs // 20),
            score=None if monitor is None else lambda: monitor.score(encoder),
            waited=lambda: loader.waited, first_step=clock.step,
        )  # fmt: skip
        if watch.score is not None and clock.step == 0:
            watch.evaluate(clock)
        train(
            contrast, state, in_format(loader, resolved),
            lr=resolved.optim.lr, m=resolved.method.momentum, seed=resolved.seed, after_step=watch,
            precision=precision_of(resolved, chosen),
        )  # fmt: skip
        finish(run, resolved, encoder, images=len(images), bad=len(quarantine), seconds=watch.seconds)
        reporter.box("done", closing(run, resolved, bad=len(quarantine)))
    return Run(out, resolved, model)


def check_data(run: RunFolder, images: Images, *, accept_change: bool, say: Callable[[str], None]) -> str:
    """The images' fingerprint. Raises DataError when they are not those that the run began with."""
    file, now = run.path / "manifest.jsonl.gz", manifest_of(images)
    changes = compare(read_manifest(file), now) if file.exists() else []
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


def stored_recipe(out: Path) -> Recipe | None:
    """The recipe of the run that is in `out` and has begun."""
    run = RunFolder(out)
    return run.recipe() if run.recipe_file.is_file() and run.begun else None


def check_init(run: RunFolder, init: str | Path | None) -> None:
    """A run that goes on has its weights: only the same --init may be said again. Raises RunError."""
    file = run.path / "init.json"
    was = json.loads(file.read_text())["weights"] if file.exists() else None
    if init is not None and was != str(init):
        raise RunError(
            f"the run in {run.path} began from {was or 'random weights'}, and --init says {init}: leave --init out "
            "to go on, or name another --out"
        )


def note_init(run: RunFolder, init: str | Path | None, said: list[str]) -> None:
    """Remember what the run began from."""
    if init is not None:
        write_text(run.path / "init.json", json.dumps({"weights": str(init), "read": said}, indent=1) + "\n")


def restore(run: RunFolder, state: TrainState, reporter: Reporter) -> None:
    """Put the newest whole checkpoint into `state`, and forget what was logged after it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = checkpoint.newest(run.checkpoints)
    for warning in caught:
        reporter.say(f"caution: {warning.message}")
    if path is not None:
        state.load_state_dict(checkpoint.load(path)["state"])
        reporter.say(f"resuming {run.path} at step {state.clock.step} of {state.clock.total_steps}")
    run.forget_after(state.clock.step if path is not None else -1)


def note_start(run: RunFolder, step: int, facts: dict[str, Any]) -> None:
    """Add this start to provenance.json."""
    file = run.path / "provenance.json"
    starts = json.loads(file.read_text()) if file.exists() else []
    write_text(file, json.dumps([*starts, {"step": step} | facts], indent=1) + "\n")


def finish(run: RunFolder, recipe: Recipe, encoder: Encoder, *, images: int, bad: int, seconds: float) -> None:
    """Write encoder/ and mark the run as finished."""
    last = summary(run)
    facts = {"images": images, "bad_images": bad, "steps": last.get("step", 0), "epochs": recipe.optim.epochs}
    facts |= {name: last[name] for name in ("loss", "pretext_top1", "knn") if name in last}
    save_encoder(run.encoder, encoder, recipe=recipe, facts=facts)
    write_text(run.path / "finished.json", json.dumps(facts | {"seconds": round(seconds, 1)}, indent=1) + "\n")
