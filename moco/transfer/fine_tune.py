"""Fine-tune a model, with the run folder, resume, NaN guard and progress display of pre-training."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from moco.data.loader.bad_images import Quarantine
from moco.distributed import main_works, on_main
from moco.encoders import Encoder
from moco.files import read_json
from moco.rng import fold
from moco.text import plural
from moco.train.after_step import AfterStep
from moco.train.build import threads
from moco.train.checkpoint import Clock, TrainState
from moco.train.ddp import wrap
from moco.train.existing_folder import State
from moco.train.loop import StepCallback, seed_step
from moco.train.nan_guard import NanGuard
from moco.train.open_run import start_run
from moco.train.options import allowed_skips
from moco.train.pace import Pace
from moco.train.reporters import Logged, Reporter
from moco.train.result_files import finish_run, report_renamed
from moco.train.resume import check_data, open_run_folder, record_start, restore
from moco.train.run_folder import RunError, RunFolder, check_init_content, record_init
from moco.train.saving import Saver
from moco.train.stop_on_signals import StopFlag, stop_on_signals
from moco.train.trackers import Trackers
from moco.train.watchdog import Watchdog
from moco.transfer.models.norms import precise_bn
from moco.transfer.plan_run import TransferJob
from moco.transfer.recipe import TransferRecipe
from moco.transfer.saved_model import model_files
from moco.transfer.task_interface import AnnotatedBatch, Batches, ModelResults
from moco.weights.content_hash import content_hash
from moco.weights.own_files import read_run_id

CHECKED = ("loss", "losses", "gradient")


@dataclass(frozen=True)
class TransferLog:
    """What a fine-tuning run logs: learning rate and losses."""

    recipe: TransferRecipe

    @property
    def images_per_step(self) -> int:
        return self.recipe.optim.batch_size

    def values(self, clock: Clock) -> dict[str, float]:
        return {"lr": self.recipe.optim.lr_at(clock.step - 1)}

    def progress(self, clock: Clock) -> str:
        return f"iteration {clock.step:,}/{clock.total_steps:,}"

    def live(self, means: dict[str, float], score: float | None) -> list[str]:
        return [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in means.items()]

    def advice(self) -> str:
        return f"Start again with a lower learning rate: --lr {self.recipe.optim.lr / 10:g} --overwrite"


def fine_tune(encoder: Encoder, job: TransferJob, reporter: Reporter, dog: Watchdog) -> dict[str, float]:
    """Train the remaining steps of a planned run, and score it on the test images. Returns the scores (on rank 0).

    Args:
        encoder: with the initial weights. It becomes part of the model.

    Raises:
        DataError: an image that cannot be read. Diverged, Stopped: as in pre-training.
    """
    init, named = job.recipe.init, job.recipe.init != "random"
    digest = content_hash(encoder.backbone.state_dict()) if named else ""
    trackers = Trackers(job.options.trackers if on_main() else ())
    with open_run_folder(job) as progress, stop_on_signals() as stop, threads(job.recipe.threads), trackers:
        if progress.started and named and on_main():
            check_init_content(job.run, init, digest)
        if progress is State.FINISHED:
            return read_scores(job.run)
        model = new_model(encoder, job)
        if not progress.started and on_main():
            report_renamed(job.run, start_run(job.run, job.recipe), reporter)
            record_init(job.run, init, [], sha256=digest)
        if on_main():
            reporter = Logged(reporter, job.run.path / "train.log")
        state = TrainState(model, job.task.optimizer(model, job.recipe), job.clock)
        fingerprint = check_data(job, reporter.say)
        restore(job, state, reporter)
        record_start(job, fingerprint)
        reporter = trackers.start(job.describe_for_trackers(parts=3), reporter)  # OUT/NAME/trial_N
        steps = range(job.clock.step, job.clock.total_steps)
        loader = job.task.batches(job.data.train, job.recipe, steps=steps, workers=job.workers)
        after_step = make_tuning_after_step(job, state, loader, reporter, dog, stop)
        dog.section("step")
        with after_step.saver:
            tune(wrap(model, skips=True), state, loader, job.recipe, after_step=after_step, guard=after_step.guard)
        dog.section("scores")
        return finish_tuning(job, model, reporter, seconds=after_step.seconds)


def new_model(encoder: Encoder, job: TransferJob) -> nn.Module:
    """Build the model on `encoder`. The run's seed determines the random weights of its new layers."""
    labels = job.task.labels(job.data.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(job.recipe.seed, len(labels.classes)))
        model = job.task.build(encoder, job.recipe, labels)
    return model.to(job.place)


def tune(
    model: nn.Module,
    state: TrainState,
    batches: Iterable[AnnotatedBatch],
    recipe: TransferRecipe,
    *,
    after_step: StepCallback,
    guard: NanGuard,
) -> None:
    """Supervised training, starting at the clock's step. `model` is state.model, perhaps wrapped in DDP.

    Random choices in a step, such as sampled anchors and RoIs, depend on seed, step and rank alone.
    """
    optimizer, clock = state.optimizer, state.clock
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(state.model, nn.Module)
    place = next(state.model.parameters()).device
    model.train()
    for batch in batches:
        seed_step(recipe.seed, clock.step)
        guard.remember()
        optimizer.zero_grad(set_to_none=True)
        losses = model(*batch.to(place))
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        parts = torch.stack([x.detach() for x in losses.values()])
        finite = guard.check_step(loss.detach(), parts[None], batch.ids)
        clock.step += 1
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = recipe.optim.lr_at(clock.step - 1)
            optimizer.step()
            guard.undo_if_not_finite()
        after_step(state, {"loss": loss.detach(), **dict(zip(losses, parts, strict=True))})


def make_tuning_after_step(
    job: TransferJob, state: TrainState, loader: Batches, reporter: Reporter, dog: Watchdog, stop: StopFlag
) -> AfterStep:
    """Make the callback after each step, with the NaN guard, which reports discarded steps to it."""
    options, clock = job.options, job.clock
    skips = allowed_skips(options.on_nan)
    guard = NanGuard(state, sticky=not skips, parts=CHECKED)
    after_step = AfterStep(
        run=job.run, recipe=job.recipe, log=TransferLog(job.recipe), reporter=reporter, stop=stop, guard=guard, dog=dog,
        allowed_skips=skips, pace=Pace(clock.step, clock.total_steps), names=job.images.names,
        saver=Saver(
            job.run, job.recipe.to_json(), reporter, options.save_every, options.keep, options.keep_every,
            run_id=read_run_id(job.run.path), beside=not options.wait_for_saves,
        ),
        log_every=max(1, min(20, clock.total_steps // 200)), eval_every=1, evaluates=False, score=lambda: 0.0,
        quarantine=Quarantine(None, None, len(job.images)), waited=lambda: loader.waited, first_step=clock.step,
    )  # fmt: skip
    guard.on_discard = partial(after_step.handle_discarded, state)
    return after_step


def finish_tuning(job: TransferJob, model: nn.Module, reporter: Reporter, *, seconds: float) -> dict[str, float]:
    """Compute BN statistics and scores on the test images, and write the model and all results."""
    recipe = job.recipe
    if recipe.precise_bn and recipe.bn != "frozen":
        later = range(recipe.optim.iterations, recipe.optim.iterations + recipe.precise_bn)
        batches = job.task.batches(job.data.train, recipe, steps=later, workers=job.workers)
        model.train()
        seed_step(recipe.seed, recipe.optim.iterations)
        precise_bn(model, batches, lambda batch: model(*batch.to(job.place)))
    with main_works():
        return score_and_write(job, model, reporter, seconds=seconds) if on_main() else {}


def score_and_write(job: TransferJob, model: nn.Module, reporter: Reporter, *, seconds: float) -> dict[str, float]:
    """Compute scores on the test images, and write the model and all results. On rank 0 only."""
    evaluation = job.task.evaluate(model, job.data.test, job.recipe, workers=job.workers)
    scores = evaluation.scores
    contents = model_files(model, recipe=job.recipe, labels=job.task.labels(job.data.train))
    files = {f"{job.run.product}/{name}": content for name, content in contents.items()}
    files["scores.json"] = (json.dumps(scores, indent=1) + "\n").encode()
    files |= evaluation_files(evaluation, reporter)
    facts = {"images": len(job.images), "bad_images": 0, "steps": job.clock.step, "epochs": job.clock.epochs}
    report_renamed(job.run, finish_run(job.run, files, facts | {"seconds": round(seconds, 1)}), reporter)
    return scores


def evaluation_files(evaluation: ModelResults, reporter: Reporter) -> dict[str, bytes]:
    """The details and pictures of an evaluation, by file name. A picture that cannot be drawn is reported."""
    details = evaluation.details
    files = {"details.json": (json.dumps(details, indent=1) + "\n").encode()} if details else {}
    for name, draw in evaluation.pictures.items():
        try:
            files[name] = draw()
        except Exception as error:  # any error: the model is trained, and a missing picture must not fail the run
            reporter.say(f"caution: {name} could not be drawn: {type(error).__name__}: {error}")
    return files


def read_scores(run: RunFolder) -> dict[str, float]:
    """The scores of a finished run. Raises RunError if scores.json is missing or damaged."""
    scores = read_json(run.path / "scores.json")
    if not isinstance(scores, dict) or not scores or not all(isinstance(x, float) for x in scores.values()):
        raise RunError(
            f"{run.path / 'scores.json'} does not hold the scores of this finished run any more: restore it from a "
            "backup, name another --out, or start again with --overwrite"
        )
    return scores


def describe_tuning(job: TransferJob) -> list[tuple[str, str]]:
    """The rows of the plan box of one run."""
    recipe, data = job.recipe, job.data
    optim = recipe.optim
    return [
        ("data", f"{plural(len(data.train), 'image')} to train on, {len(data.test):,} to test on, "
                 f"{plural(len(data.train.classes), 'class')}"),
        ("model", job.task.describe(recipe)),
        ("recipe", f"{recipe.name}  ({recipe.source})"),
        ("length", f"{optim.iterations:,} iterations of {optim.batch_size} images, lr {optim.lr:g}"),
    ]  # fmt: skip
