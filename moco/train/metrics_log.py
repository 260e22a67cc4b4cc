"""What a run logs and shows about a step, besides the metrics that the step returns."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from moco.recipe import Recipe
from moco.train.checkpoint import Clock


@runtime_checkable
class StepLog(Protocol):
    """The part of the log that depends on the kind of run: pre-training (below) or fine-tuning (`moco.transfer`)."""

    @property
    def images_per_step(self) -> int: ...

    def values(self, clock: Clock) -> dict[str, float]:
        """Columns of metrics.jsonl about the step that the clock has just counted, such as its learning rate."""
        ...

    def progress(self, clock: Clock) -> str:
        """The progress of the run, for the live line."""
        ...

    def live(self, means: dict[str, float], score: float | None) -> list[str]:
        """Parts of the live line, most important first: the means since the last record, and the last score."""
        ...

    def advice(self) -> str:
        """What the user can try if the loss is not finite any more."""
        ...


@dataclass(frozen=True)
class PretrainLog:
    """Logs learning rate and momentum m; shows the loss with its value at chance, and the contrastive accuracy."""

    recipe: Recipe

    @property
    def images_per_step(self) -> int:
        return self.recipe.optim.batch_size

    def values(self, clock: Clock) -> dict[str, float]:
        before = Clock(clock.steps_per_epoch, clock.total_steps, clock.step - 1)  # the step used this learning rate
        return {
            "lr": self.recipe.optim.lr(before.epoch, before.epochs),
            "m": self.recipe.method.momentum(clock.epoch, clock.epochs),
        }

    def progress(self, clock: Clock) -> str:
        return f"epoch {clock.epoch:.1f}/{clock.epochs:.0f}"

    def live(self, means: dict[str, float], score: float | None) -> list[str]:
        parts = [f"loss {means['loss']:.2f}", f"(chance {self.recipe.collapse_level:.2f})"] if means else []
        parts += [] if score is None else [f"kNN {score:.1f} %"]
        return parts + ([f"contrastive accuracy {100 * means['pretext_top1']:.0f} %"] if means else [])

    def advice(self) -> str:
        lr = self.recipe.optim.lr
        lower = f"Start again with a lower learning rate: --set optim.lr.{lr.PEAK}={lr.peak / 10:g} --overwrite"
        return lower + ("" if self.recipe.compute.precision == "fp32" else ", or with --precision fp32")
