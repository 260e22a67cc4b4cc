"""Fine-tune a detector on an encoder: the run folder, resume, NaN guard and progress are those of pre-training."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.distributed import barrier, on_main
from moco.encoders import Encoder
from moco.files import read_json, write_json
from moco.rng import fold
from moco.text import plural
from moco.train.after_step import AfterStep
from moco.train.build import threads
from moco.train.checkpoint import Clock, TrainState
from moco.train.ddp import wrap
from moco.train.existing_folder import State
from moco.train.loop import StepCallback, seed_step
from moco.train.nan_guard import NanGuard
from moco.train.nan_report import allowed_skips
from moco.train.open_run import start_run
from moco.train.optim import SGD
from moco.train.pace import Pace
from moco.train.reporters import Logged, Reporter
from moco.train.resume import check_data, note_this_start, opened, restore
from moco.train.run_folder import RunError, RunFolder, note_init
from moco.train.saving import Saver
from moco.train.signals import StopFlag, stop_on_signals
from moco.train.watchdog import Watchdog
from moco.transfer.loader import SceneBatch, SceneLoader
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.norms import parameter_groups, precise_bn
from moco.transfer.models.sampling import Target
from moco.transfer.plan_run import TransferJob
from moco.transfer.recipe import TransferRecipe
from moco.transfer.saved_model import save_detector
from moco.transfer.score import score_detector

CHECKED = ("loss", "losses", "gradient")


@dataclass(frozen=True)
class TransferLog:
    """What a fine-tuning run logs of its steps: learning rate and losses."""

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
    """Train what is left of a planned run, and score it on the test images. Returns its scores (on rank 0).

    Args:
        encoder: with the initial weights. It becomes part of the detector.

    Raises:
        DataError: an image that cannot be read. Diverged, Stopped: as in pre-training.
    """
    with opened(job) as found, stop_on_signals() as stop, threads(job.recipe.threads):
        if found is State.FINISHED:
            return read_scores(job.run)
        detector = new_detector(encoder, job)
        if not found.started and on_main():
            start_run(job.run, job.recipe)
            note_init(job.run, job.recipe.init, [])
        if on_main():
            reporter = Logged(reporter, job.run.path / "train.log")
        state = TrainState(detector, optimizer_for(detector, job.recipe), job.clock)
        fingerprint = check_data(job, reporter.say)
        restore(job, state, reporter)
        note_this_start(job, fingerprint)
        loader = SceneLoader(
            job.data.train, job.recipe, steps=range(job.clock.step, job.clock.total_steps), workers=job.workers
        )
        after_step = make_after_step(job, state, loader, reporter, dog, stop)
        dog.section("step")
        tune(wrap(detector, skips=True), state, loader, job.recipe, after_step=after_step, guard=after_step.guard)
        dog.section("scores")
        return finish(job, detector, seconds=after_step.seconds)


def new_detector(encoder: Encoder, job: TransferJob) -> Detector:
    """The detector on `encoder`; its new layers have random weights of the run's seed."""
    recipe, classes = job.recipe, job.data.train.classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(recipe.seed, len(classes)))
        detector = build_detector(
            encoder.backbone, recipe.task, recipe.arch, len(classes), norm=recipe.bn,
            settings=recipe.settings(len(classes), len(job.data.train.keypoint_names)),
            mean=recipe.mean, std=recipe.std,
        )  # fmt: skip
    return detector.to(job.place)


def optimizer_for(detector: nn.Module, recipe: TransferRecipe) -> torch.optim.Optimizer:
    """SGD; norm layers have no weight decay."""
    groups = parameter_groups(detector, recipe.optim.weight_decay)
    return SGD([group for group in groups if group["params"]], lr=0.0, momentum=recipe.optim.momentum, fused=True)


def tune(
    model: nn.Module,
    state: TrainState,
    batches: Iterable[SceneBatch],
    recipe: TransferRecipe,
    *,
    after_step: StepCallback,
    guard: NanGuard,
) -> None:
    """Supervised training, from the clock's step on. `model` is state.model, in DDP or not.

    What is random in a step, the anchors and RoIs that losses look at, depends on seed, step and rank alone.
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
        losses = model(*on_device(batch, place))
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


def on_device(batch: SceneBatch, place: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Images and targets of a mini-batch on the device."""
    images = [image.to(place, non_blocking=True) for image in batch.images]
    targets = [
        {name: x.to(place, non_blocking=True) if isinstance(x, Tensor) else x for name, x in target.items()}
        for target in batch.targets
    ]
    return images, targets


def make_after_step(
    job: TransferJob, state: TrainState, loader: SceneLoader, reporter: Reporter, dog: Watchdog, stop: StopFlag
) -> AfterStep:
    """The callback after each step, with the NaN guard that reports discarded steps to it."""
    options, clock = job.options, job.clock
    skips = allowed_skips(options.on_nan)
    guard = NanGuard(state, sticky=not skips, parts=CHECKED)
    after_step = AfterStep(
        run=job.run, recipe=job.recipe, log=TransferLog(job.recipe), reporter=reporter, stop=stop, guard=guard, dog=dog,
        allowed_skips=skips, pace=Pace(clock.step, clock.total_steps), names=job.images.names,
        saver=Saver(job.run, job.recipe.to_json(), reporter, options.save_every, options.keep, options.keep_every),
        log_every=max(1, min(20, clock.total_steps // 200)), eval_every=1, evaluates=False, score=lambda: 0.0,
        quarantine=Quarantine(None, None, len(job.images)), waited=lambda: loader.waited, first_step=clock.step,
    )  # fmt: skip
    guard.on_discard = partial(after_step.handle_discarded, state)
    return after_step


def finish(job: TransferJob, detector: Detector, *, seconds: float) -> dict[str, float]:
    """Exact statistics of BN, scores on the test images, the model, finished.json."""
    recipe = job.recipe
    if recipe.precise_bn and recipe.bn != "frozen":
        later = range(recipe.optim.iterations, recipe.optim.iterations + recipe.precise_bn)
        batches = SceneLoader(job.data.train, recipe, steps=later, workers=job.workers)
        detector.train()
        seed_step(recipe.seed, recipe.optim.iterations)
        precise_bn(detector, batches, lambda batch: detector(*on_device(batch, job.place)))
    scores: dict[str, float] = {}
    if on_main():
        scores = score_detector(detector, job.data.test, recipe, workers=job.workers)
        save_detector(job.run.path / job.run.product, detector, recipe=recipe, scenes=job.data.train)
        write_json(job.run.path / "scores.json", scores)
        facts = {"images": len(job.images), "bad_images": 0, "steps": job.clock.step, "epochs": job.clock.epochs}
        write_json(job.run.path / "finished.json", facts | {"seconds": round(seconds, 1)})
    barrier()
    return scores


def read_scores(run: RunFolder) -> dict[str, float]:
    """The scores of a finished run. Raises RunError where its scores.json does not hold them any more."""
    scores = read_json(run.path / "scores.json")
    if not isinstance(scores, dict) or "AP" not in scores or not all(isinstance(x, float) for x in scores.values()):
        raise RunError(
            f"{run.path / 'scores.json'} does not hold the scores of the finished run any more: restore it from a "
            "backup, name another --out, or --overwrite"
        )
    return scores


def describe(job: TransferJob) -> list[tuple[str, str]]:
    """The rows of the plan box of one run."""
    recipe, data = job.recipe, job.data
    optim = recipe.optim
    return [
        ("data", f"{plural(len(data.train), 'image')} to train on, {len(data.test):,} to test on, "
                 f"{len(data.train.classes)} classes"),
        ("detector", f"{recipe.task}, {recipe.encoder.name} {recipe.arch}, BN {recipe.bn}"),
        ("recipe", f"{recipe.name}  ({recipe.source})"),
        ("length", f"{optim.iterations:,} iterations of {optim.batch_size} images, lr {optim.lr:g}"),
    ]  # fmt: skip
