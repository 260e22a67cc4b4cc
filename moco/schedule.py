"""Schedules: what the learning rate and the momentum m are at each point of a run, as plain data.

A schedule maps (epochs done, epochs in all) to a value. It holds no state, so a recipe can carry it and a resumed run
needs nothing but its step. A new kind is one class here, and its name in `Schedule`.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

Same = TypeVar("Same", bound="ScheduleKind")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScheduleKind(ABC):
    """What every kind of schedule can do besides being called."""

    PEAK: ClassVar[str] = "value"  # the field that sets the height of the curve

    @property
    def peak(self) -> float:
        """The largest value, whatever the number of epochs."""
        return getattr(self, self.PEAK)

    @abstractmethod
    def __call__(self, epoch: float, epochs: float) -> float:
        """The value after `epoch` of `epochs` epochs."""

    @abstractmethod
    def describe(self) -> str:
        """The schedule in words, as tables and plans print it."""

    def scaled(self: Same, factor: float) -> Same:
        """The same schedule with `factor` times the peak: the linear rule of learning rates."""
        changed: Any = {self.PEAK: getattr(self, self.PEAK) * factor}
        return dataclasses.replace(self, **changed)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, config=STRICT)
class Constant(ScheduleKind):
    """The same `value` throughout."""

    value: float
    kind: Literal["constant"] = "constant"

    def __call__(self, epoch: float, epochs: float) -> float:
        return self.value

    def describe(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True, config=STRICT)
class Steps(ScheduleKind):
    """`value`, times `factor` at each milestone [epochs] passed. MoCo v1, Sec. 4: Steps(0.03, at=(120, 160))."""

    value: float
    at: tuple[float, ...]
    factor: float = 0.1
    kind: Literal["steps"] = "steps"

    def __call__(self, epoch: float, epochs: float) -> float:
        return self.value * self.factor ** sum(epoch >= milestone for milestone in self.at)

    def describe(self) -> str:
        return f"{self.value:g}, x {self.factor:g} at epochs {', '.join(f'{one:g}' for one in self.at)}"


@dataclass(frozen=True, config=STRICT)
class Decay(ScheduleKind):
    """`value`, times `factor` after every `every` epochs, a fraction if need be: MoCo v1 on IG-1B, Sec. 4."""

    value: float
    every: Annotated[float, Field(gt=0)]
    factor: float = 0.9
    kind: Literal["decay"] = "decay"

    def __call__(self, epoch: float, epochs: float) -> float:
        return self.value * self.factor ** math.floor(
            epoch / self.every + 1e-9
        )  # 1e-9: the quotient may be rounded down to just below an integer

    def describe(self) -> str:
        return f"{self.value:g}, x {self.factor:g} every {self.every:.4g} epochs"


@dataclass(frozen=True, config=STRICT)
class Cosine(ScheduleKind):
    """Half a cosine from `start` to `stop`, after a linear warm-up from 0 over `warmup` epochs.

    `whole_epochs` changes the value once an epoch, as MoCo v1 and v2 do; otherwise it changes at every step.
    `first` is the number that the first epoch counts as: 0, but 1 in MoCo's CIFAR notebook, whose last epoch has lr 0.
    """

    PEAK: ClassVar[str] = "start"

    start: float
    stop: float = 0.0
    warmup: float = 0.0
    whole_epochs: bool = False
    first: Literal[0, 1] = 0
    kind: Literal["cosine"] = "cosine"

    @property
    def peak(self) -> float:
        return max(self.start, self.stop)

    def __call__(self, epoch: float, epochs: float) -> float:
        if epoch < self.warmup:
            return self.start * epoch / self.warmup
        done = (math.floor(epoch) if self.whole_epochs else epoch) + self.first
        share = min((done - self.warmup) / max(epochs - self.warmup, 1e-12), 1.0)
        return self.stop + (self.start - self.stop) * 0.5 * (1 + math.cos(math.pi * share))

    def describe(self) -> str:
        often = "epoch" if self.whole_epochs else "step"
        warm = f", warm-up {self.warmup:g} epochs" if self.warmup else ""
        first = ", epochs from 1" if self.first else ""
        return f"{self.start:g} to {self.stop:g}, cosine by {often}{warm}{first}"


def _number_is_constant(value: Any) -> Any:
    """A bare number where a schedule is expected means that number throughout."""
    return (
        {"kind": "constant", "value": value}
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value
    )


Schedule = Annotated[
    Constant | Steps | Decay | Cosine, Field(discriminator="kind"), BeforeValidator(_number_is_constant)
]
