"""Pre-train: plan a run, build the networks, train by Algorithm 1, and save the encoder in the run folder."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from moco.atomic_output import local_path
from moco.data.augment.kernel_loading import is_loading
from moco.data.loader.deal_keys import DealtLoader
from moco.data.loader.loader import ViewLoader
from moco.data.sources.open import Sources
from moco.device import pick_device
from moco.distributed import is_restarted, on_main, session
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.monitor import Monitor, monitor_for
from moco.method import Contrast
from moco.planning.budget import parse_budget
from moco.recipe import Recipe
from moco.recipes.domain_views import changes_for
from moco.train.after_step import AfterStep, last_values
from moco.train.build import build_f_q, in_format, precision_of, threads
from moco.train.checkpoint import TrainState
from moco.train.compare_run import compare_at_end
from moco.train.ddp import wrap
from moco.train.draw_pictures import draw_pictures
from moco.train.existing_folder import State, read_stored_recipe
from moco.train.live_diagnosis import live_diagnosis
from moco.train.loop import train
from moco.train.metrics_log import PretrainLog
from moco.train.nan_guard import NanGuard
from moco.train.options import RunKeywords, RunOptions, allowed_skips
from moco.train.pace import Pace
from moco.train.plan_run import PretrainJob, plan_job
from moco.train.rank_sync import average_statistics
from moco.train.report_run import report_at_end
from moco.train.reporters import Reporter, Silent
from moco.train.resolve_recipe import changes_of
from moco.train.result_files import finish_run, report_renamed
from moco.train.resume import (
    build_networks,
    check_data,
    describe_other_images,
    fill_queue,
    get_trained_encoder,
    make_scorer,
    open_run_folder,
    record_start,
    report_start,
    restore,
    start_folder,
)  # fmt: skip
from moco.train.run_folder import RunFolder
from moco.train.run_pictures import RunImages
from moco.train.saving import Saver
from moco.train.stop_on_signals import StopFlag, stop_on_signals
from moco.train.stop_reason import StopReason
from moco.train.summary import make_closing_rows, plan_rows
from moco.train.trackers import Trackers
from moco.train.unused_parameters import skips_parameters
from moco.train.watchdog import Watchdog, watchdog
from moco.weights.encoder_folder import encoder_files
from moco.weights.own_files import read_run_id


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    recipe: Recipe
    model: str | nn.Module | None = None  # what was given for `model`

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe {self.recipe.name})"

    def encoder(self) -> Pretrained:
        return load_pretrained(self.path, model=self.model if isinstance(self.model, nn.Module) else None)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return RunFolder(self.path).metrics()


def pretrain(
    data: Sources,
    out: str | Path,
    *,
    recipe: str | Recipe = "auto",
    model: str | nn.Module | None = None,
    epochs: float | None = None,
    budget: str | float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    precision: str | None = None,
    views: str | None = None,
    bands: bool = False,
    settings: dict[str, Any] | None = None,
    init: str | Path | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[RunKeywords],
) -> Run:
    """Pre-train an encoder on images by Momentum Contrast. With several ranks, every rank calls it.

    Args:
        data: folders or list files with images, a map-style Dataset (its items: an image, (image, label, ...) or a dict
            with one image), a list of images, or an array of them. Labels, if any, are not looked at.
        out: the run folder; see `moco.train.run_folder`.
        recipe: a name of `moco.recipes`, "auto" (MoCo v2 fitted to the images), the path of a recipe.json, or a Recipe.
        model: the encoder's name ("torchvision/resnet50", "timm/convnext_tiny", ...), or a module of your own.
        epochs, batch_size, seed, precision, settings: changes to the recipe; `settings` by dotted field name. "auto"
            fits the rest to `epochs` and `batch_size`; other recipes keep their learning rate.
        views: a kind of views, such as "aerial" (see `moco.recipes.domain_views`); `settings` may change it.
        bands: read all bands of the images in full depth, any number of them; their ranges, means and deviations are
            measured and stored in the recipe (docs/data.md).
        init: weights to start from, anything that `moco.load` reads: f_q, and what else they have of head, f_k,
            predictor and queue (see `moco.train.warm_start`).
        budget: the time that the run may take, in seconds or as text such as "10m" or "8h": this machine is measured,
            and the length is chosen; with "auto" also the network and the size of its views.
        options: how the run is carried out; see `moco.train.options.RunOptions`.

    Raises:
        RecipeError: a recipe that cannot run, or a folder that cannot be used.
        DataError: no images, too many unreadable ones, or others than at the start of the run.
        Stopped: a signal stopped the run; its state is saved. After Ctrl-C it is a KeyboardInterrupt too.
        Diverged: the loss is not finite any more. Collapsed: see `on_collapse`.
        RankError: another rank raised one of these, or has ended.
    """
    chosen = RunOptions(**options).resume_after_restart() if is_restarted() else RunOptions(**options)
    arguments = {"optim.epochs": epochs, "optim.batch_size": batch_size, "seed": seed, "compute.precision": precision}
    changes = changes_of(arguments, changes_for(views) | (settings or {}))
    with watchdog(chosen.patience) as dog, session(pick_device(chosen.device)) as place:
        reporter = reporter if reporter is not None and on_main() else Silent()
        job = plan_job(
            data, local_path(out), place, chosen, recipe=recipe, model=model, changes=changes, init=init, bands=bands,
            budget=None if budget is None else parse_budget(budget), report=reporter.live,
        )  # fmt: skip
        if chosen.dry_run:
            check_start(job, model=model, init=init)
        reporter.box("plan", rows_of_plan(job, init))
        if not chosen.dry_run:
            carry_out(job, reporter, dog, model=model, init=init)
    return Run(job.run.path, job.recipe, model)


def rows_of_plan(job: PretrainJob, init: str | Path | None) -> list[tuple[str, str]]:
    """The plan of a run. After a finished run nothing is trained, so cautions do not apply."""
    rows = plan_rows(job.recipe, job.images, job.clock, job.place, job.run.path, init=init, time=job.time)
    ended = job.run.finished and not job.options.overwrite
    return [row for row in rows if not (ended and row[0] == "caution")]


def carry_out(
    job: PretrainJob, reporter: Reporter, dog: Watchdog, *, model: str | nn.Module | None, init: str | Path | None
) -> None:
    """Start or resume a planned run, train to its end, and save the encoder."""
    trackers = Trackers(job.options.trackers if on_main() else ())
    with (
        open_run_folder(job) as progress, stop_on_signals() as stop, threads(job.recipe.compute.threads), trackers,
        StopReason() as stop_reason,
    ):  # fmt: skip
        if progress is State.FINISHED:
            reporter.say(f"{job.run.path} is finished already: nothing to train (--overwrite starts again)")
            if other := describe_other_images(job):
                reporter.say(other)
            return
        monitor = build_monitor(job)
        networks = build_networks(job, model=model, init=init, fresh=not progress.started)
        if not progress.started:  # all checks have passed
            start_folder(job, networks)
        reporter = stop_reason.note_in(report_start(job, networks, reporter))
        if monitor is not None:
            reporter.say(str(monitor))
        state = job.state(networks.contrast)
        model_in_ranks = wrap(networks.contrast, skips=skips_parameters(networks.contrast.encoder, job.recipe))
        fingerprint = check_data(job, reporter.say)
        restore(job, state, reporter)
        record_start(job, fingerprint)
        reporter = trackers.start(job.describe_for_trackers(), reporter)
        fill_queue(job, networks, reporter)
        loader = job.loader(range(job.clock.step, job.clock.total_steps))
        after_step = make_after_step(job, state, loader, reporter, dog, stop, monitor)
        if after_step.evaluates and job.clock.step == 0:
            after_step.evaluate(state)
        if after_step.diagnosis is not None and job.clock.step == 0:
            after_step.diagnose(state)
        dog.section("step")
        with after_step.saver:
            train(
                model_in_ranks, state, in_format(loader, job.recipe), lr=job.recipe.optim.lr,
                m=job.recipe.method.momentum, seed=job.recipe.seed, after_step=after_step, guard=after_step.guard,
                precision=precision_of(job.recipe, job.place),
            )  # fmt: skip
        dog.section("checkpoint")
        finish_pretraining(job, networks.contrast, reporter, bad=len(loader.quarantine), seconds=after_step.seconds)


def check_start(job: PretrainJob, *, model: str | nn.Module | None, init: str | Path | None) -> None:
    """Make the checks that a run makes after its plan: images of `eval_data`, network, weights to start from.

    Weights that are not on this machine are not downloaded, and those of a run that resumes are not read.
    """
    build_monitor(job)
    if read_stored_recipe(job.run.path) is None or job.options.overwrite:
        there = init if init is not None and os.path.exists(init) else None
        with torch.random.fork_rng():
            build_f_q(job.recipe, model=model, init=there, say=lambda _: None)


def build_monitor(job: PretrainJob) -> Monitor | None:
    """The monitor that scores the encoder on labelled images; None without such images, and on other ranks than 0."""
    if job.options.eval_data is None or not on_main():
        return None
    return monitor_for(job.options.eval_data, job.recipe.data, device=job.place, workers=job.workers)


def make_after_step(
    job: PretrainJob,
    state: TrainState,
    loader: ViewLoader | DealtLoader,
    reporter: Reporter,
    dog: Watchdog,
    stop: StopFlag,
    monitor: Monitor | None,
) -> AfterStep:
    """The callback after each step, and the NaN guard, which reports discarded steps to it."""
    options, clock = job.options, job.clock
    skips, log_every = allowed_skips(options.on_nan), max(1, min(50, clock.total_steps // 500))
    guard = NanGuard(state, sticky=not skips)
    assert isinstance(state.model, Contrast)
    after_step = AfterStep(
        run=job.run, recipe=job.recipe, log=PretrainLog(job.recipe), reporter=reporter, stop=stop, guard=guard, dog=dog,
        allowed_skips=skips,
        pace=Pace(clock.step, clock.total_steps, warming_up=is_loading), names=job.images.names,
        saver=Saver(
            job.run, job.recipe.to_json(), reporter, options.save_every, options.keep, options.keep_every,
            run_id=read_run_id(job.run.path), beside=not options.wait_for_saves,
        ),
        log_every=log_every, diagnosis=live_diagnosis(job, reporter, log_every=log_every),
        eval_every=options.eval_every or max(1, int(job.recipe.optim.epochs // 20)),
        evaluates=options.eval_data is not None, score=make_scorer(monitor, state.model), quarantine=loader.quarantine,
        waited=lambda: loader.waited, first_step=clock.step,
    )  # fmt: skip
    guard.on_discard = partial(after_step.handle_discarded, state)
    return after_step


def finish_pretraining(job: PretrainJob, contrast: Contrast, reporter: Reporter, *, bad: int, seconds: float) -> None:
    """Save the encoder, write finished.json; then pictures, the comparison with baselines, and the report."""
    with average_statistics(contrast):
        if not on_main():
            return
        run, last = job.run, last_values(job.run)
        facts = {"images": len(job.images), "bad_images": bad, "steps": last.get("step", 0)}
        facts |= {"epochs": job.recipe.optim.epochs}
        facts |= {name: last[name] for name in ("loss", "pretext_top1", "knn") if name in last}
        files = encoder_files(get_trained_encoder(contrast), recipe=job.recipe, facts=facts)
        files = {f"encoder/{name}": content for name, content in files.items()}
        report_renamed(run, finish_run(run, files, facts | {"seconds": round(seconds, 1)}), reporter)
        among = RunImages(
            job.images, get_trained_encoder(contrast), job.recipe.data, step=last.get("step", 0), device=job.place,
            workers=job.workers, processes=job.options.processes,
        )  # fmt: skip
        pictures = draw_pictures(job, among, reporter)
        compare_at_end(job, get_trained_encoder(contrast), reporter, seconds=seconds)
        report = report_at_end(run, reporter, lambda: among) if job.options.report else None
        reporter.box("done", make_closing_rows(run, job.recipe, bad=bad, pictures=pictures, report=report))
