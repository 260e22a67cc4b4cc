"""`pretrain`: from images to a run folder with an encoder in it. Makes the objects, then lets Algorithm 1 run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from moco.data.sources.open import Sources, open_images
from moco.device import pick_device, workers_for
from moco.distributed import on_main, restarted, session, wrap
from moco.evaluate.features import Pretrained, load
from moco.evaluate.monitor import monitor_for
from moco.files import write_json
from moco.method import Contrast
from moco.recipe import Recipe
from moco.train.after_step import Watch, summary
from moco.train.build import in_format, precision_of, threads
from moco.train.console import Reporter, Silent
from moco.train.folder_state import State, stored_recipe
from moco.train.loop import train
from moco.train.nan_guard import Gate
from moco.train.nan_report import bearable
from moco.train.open_run import check_before
from moco.train.out_check import check_apart
from moco.train.own_pictures import draw_pictures
from moco.train.pace import Pace
from moco.train.rank_sync import averaged, check_same_images
from moco.train.resolve import changes_of, check_fits, check_learns, resolve
from moco.train.resume import (
    Job,
    build_networks,
    check_data,
    check_device,
    clock_of,
    encoder_of,
    opened,
    report_start,
    restore,
    scorer,
    shared_recipe,
    start_folder,
)  # fmt: skip
from moco.train.run_folder import RunFolder, note_start, provenance
from moco.train.saving import Saver
from moco.train.signals import stop_on_signals
from moco.train.summary import closing, expected_at_first, plan
from moco.train.unused import skips_parameters
from moco.train.warm_start import refill
from moco.train.watchdog import watchdog
from moco.weights.encoder_folder import save_encoder


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
    batch_size: int | None = None,
    settings: dict[str, Any] | None = None,
    seed: int | None = None,
    precision: str | None = None,
    init: str | Path | None = None,
    eval_data: Sources | None = None,
    eval_every: int | None = None,
    resume: str = "auto",
    overwrite: bool = False,
    accept_data_change: bool = False,
    device: str = "auto",
    workers: int | None = None,
    processes: bool = False,
    save_every: int | None = None,
    keep: int = 3,
    keep_every: int | None = None,
    on_nan: str = "stop",
    max_bad: float | None = None,
    patience: float | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Pre-train an encoder on images by Momentum Contrast. Every rank that torchrun has started calls it alike.

    Args:
        data: folders or list files with images, a map-style Dataset (its items: an image, (image, label, ...) or a dict
            with one image), a list of images, or an array of them. Labels, if any, are not looked at.
        out: the run folder; see `moco.train.run_folder`.
        recipe: a name of `moco.recipes`, "auto" (MoCo v2 fitted to the images), the path of a recipe.json, or a Recipe.
        model: the encoder's name ("torchvision/resnet50", "timm/convnext_tiny", ...), or a module of your own.
        epochs, batch_size, seed, precision, settings: changes to the recipe; `settings` by dotted field name. "auto"
            fits the rest to `epochs` and `batch_size`; other recipes keep their learning rate.
        init: weights to start from, anything that `moco.load` reads: f_q, and what else they have of head, f_k,
            predictor and queue (see `moco.train.warm_start`).
        eval_data: labelled images, as `data`, for a kNN score during training, every `eval_every` epochs.
        resume: "auto" continues the run that is in `out`; "never" refuses one; "must" demands one.
        accept_data_change: continue though images were added, removed or changed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: threads that read images, or `processes`; None: one a core, at most 8. Neither changes the result.
        save_every: steps between checkpoints; None: a minute. The newest `keep` stay, and one every `keep_every` steps.
        on_nan: what a step is met with whose loss, keys or gradient are not finite, and which changes nothing: "stop"
            the run, or "skip:N": leave out up to N such steps.
        max_bad: how many unreadable images are too many (below 1: a share); None: 0.1 %, at least 10.
        patience: minutes that a step or a checkpoint may take (setting up, or a score, four times that) before the
            process ends itself, with the stack of every thread; None or 0: for ever (the command's is 30).
        dry_run: show the plan and stop.

    Raises:
        RecipeError: a recipe that cannot run, or a folder that cannot be used.
        DataError: no images, too many unreadable ones, or others than when the run began.
        Stopped: a signal came; the state is saved. By Ctrl-C it is a KeyboardInterrupt as well.
        Diverged: the loss is not finite any more.
        RankError: another rank raised one of these, or has gone.
    """
    with watchdog(patience) as dog, session(pick_device(device)) as place:
        check_device(device, place)
        reporter = reporter if reporter is not None and on_main() else Silent()
        if restarted():  # torchrun repeats the command, and means to go on
            overwrite, resume = False, "auto"
        out, images = Path(out), open_images(data)
        workers, bears = workers_for(workers), bearable(on_nan)
        own = {"optim.epochs": epochs, "optim.batch_size": batch_size, "seed": seed, "compute.precision": precision}
        changes = changes_of(own, settings)
        chosen = shared_recipe(
            lambda: resolve(
                recipe, images, place, model=model, changes=changes, stored=None if overwrite else stored_recipe(out)
            )
        )
        check_fits(chosen, len(images))
        check_same_images(images)
        if on_main():
            check_apart(out, images, eval_data=eval_data, init=init, overwrite=overwrite)
            check_before(RunFolder(out), chosen, resume=resume, overwrite=overwrite)
        job = Job(images, chosen, clock_of(chosen, len(images)), place, workers, RunFolder(out), processes)
        check_learns(chosen, job.clock)
        reporter.box("plan", plan(chosen, images, job.clock, place, out))
        if dry_run:
            return Run(out, chosen, model)
        with (
            opened(out, chosen, resume=resume, overwrite=overwrite) as there,
            stop_on_signals() as stop,
            threads(chosen.compute.threads),
        ):
            if there is State.FINISHED:
                reporter.say(f"{out} is finished already: nothing to train (--overwrite starts again)")
                return Run(out, chosen, model)
            monitor = None
            if eval_data is not None and on_main():
                monitor = monitor_for(eval_data, chosen.data, device=place, workers=workers)
            networks = build_networks(job, model=model, init=init, fresh=not there.started)
            if not there.started:  # from here on nothing is wrong with what was asked for
                start_folder(job, networks)
            reporter, contrast, init = report_start(job, networks, reporter), networks.contrast, networks.init
            if monitor is not None:
                reporter.say(str(monitor))
            state = job.state(contrast)
            together = wrap(contrast, skips=skips_parameters(contrast.encoder, chosen))
            fingerprint = check_data(job.run, images, accept_change=accept_data_change, say=reporter.say)
            restore(job.run, state, reporter)
            if on_main():
                facts = provenance(device=place, workers=workers, images=images, data=fingerprint)
                note_start(job.run, job.clock.step, facts)
            arithmetic = precision_of(chosen, place)
            if init is not None and job.clock.step == 0:
                filled = refill(
                    contrast, lambda steps: in_format(job.loader(max_bad, steps), chosen), chosen,
                    steps_per_epoch=job.clock.steps_per_epoch, precision=arithmetic,
                )  # fmt: skip
                for line in filled:
                    reporter.say(line)
            elif job.clock.step == 0:
                for line in expected_at_first(chosen):
                    reporter.say(line)
            loader = job.loader(max_bad, range(job.clock.step, job.clock.total_steps))
            gate = Gate(state, refused=lambda refusal: watch.refuse(state, refusal), sticky=not bears)
            watch = Watch(
                run=job.run, recipe=chosen, reporter=reporter, stop=stop, gate=gate, dog=dog, bears=bears,
                pace=Pace(job.clock.step, job.clock.total_steps),
                names=images.names, saver=Saver(job.run, chosen.to_json(), reporter, save_every, keep, keep_every),
                log_every=max(1, min(50, job.clock.total_steps // 500)),
                eval_every=eval_every or max(1, int(chosen.optim.epochs // 20)),
                evaluates=eval_data is not None, score=scorer(monitor, contrast), quarantine=loader.quarantine,
                waited=lambda: loader.waited, first_step=job.clock.step,
            )  # fmt: skip
            if watch.evaluates and job.clock.step == 0:
                watch.evaluate(state)
            dog.section("step")
            train(
                together, state, in_format(loader, chosen),
                lr=chosen.optim.lr, m=chosen.method.momentum, seed=chosen.seed, after_step=watch,
                gate=gate, precision=arithmetic,
            )  # fmt: skip
            dog.section("checkpoint")
            finish(job, contrast, reporter, bad=len(loader.quarantine), seconds=watch.seconds)
    return Run(out, chosen, model)


def finish(job: Job, contrast: Contrast, reporter: Reporter, *, bad: int, seconds: float) -> None:
    """Write encoder/ and mark the run as finished."""
    with averaged(contrast):
        if not on_main():
            return
        run, last = job.run, summary(job.run)
        facts = {"images": len(job.images), "bad_images": bad, "steps": last.get("step", 0)}
        facts |= {"epochs": job.recipe.optim.epochs}
        facts |= {name: last[name] for name in ("loss", "pretext_top1", "knn") if name in last}
        save_encoder(run.encoder, encoder_of(contrast), recipe=job.recipe, facts=facts)
        write_json(run.path / "finished.json", facts | {"seconds": round(seconds, 1)})
        pictures = draw_pictures(job, encoder_of(contrast), reporter)
        reporter.box("done", closing(run, job.recipe, bad=bad, pictures=pictures))
