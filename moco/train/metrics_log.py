"""What a run logs and shows of its steps beside the metrics that each step returns."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from moco.recipe import Recipe
from moco.train.checkpoint import Clock


@runtime_checkable
class StepLog(Protocol):
    """What depends on the kind of run: pre-training here, fine-tuning in `moco.transfer`."""

    @property
    def images_per_step(self) -> int: ...

    def values(self, clock: Clock) -> dict[str, float]:
        """Columns of metrics.jsonl: what the step was made with, once it is done."""
        ...

    def progress(self, clock: Clock) -> str:
        """How far the run is, for the live line."""
        ...

    def live(self, means: dict[str, float], score: float | None) -> list[str]:
        """Parts of the live line: the metrics since the last record and the last score, most important first."""
        ...

    def advice(self) -> str:
        """What to try if the loss is no longer finite."""
        ...


@dataclass(frozen=True)
class PretrainLog:
    """Learning rate, momentum m, loss beside its level at chance, contrastive accuracy."""

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
