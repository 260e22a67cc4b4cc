"""The NaN guard: discard a step whose loss, keys or gradient are not finite, so that it changes nothing."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import mean_over_ranks
from moco.method import MomentumEncoder
from moco.train.checkpoint import TrainState

PARTS = ("loss", "keys", "gradient")  # of a step of Algorithm 1
REMEMBERED = 100  # losses of earlier steps in the report of a discarded step


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite numbers."""


@dataclass(frozen=True)
class DiscardedStep:
    """A step that was discarded because it was not finite."""

    step: int  # of the clock, before this step
    ids: Int[Tensor, "N"]  # this rank's images
    parts: tuple[str, ...]  # what was not finite, on any rank
    losses: list[float]  # of up to 100 earlier steps; the last one is its own

    def __str__(self) -> str:
        return f"not finite at step {self.step + 1}: {', '.join(self.parts)} (its loss is {self.losses[-1]})"


def raise_diverged(discarded: DiscardedStep) -> None:
    raise Diverged(str(discarded))


@dataclass(frozen=True)
class Pending:
    """The check of a step whose result the host has not read yet."""

    step: int
    ids: Tensor
    losses: list[Tensor]
    parts: tuple[str, ...]  # what was checked
    flags: Tensor  # one for each part, on the host: above 0 if it was not finite on some rank
    copied: torch.cuda.Event | None  # the copy of the flags to the host is complete

    def list_not_finite(self) -> tuple[str, ...]:
        if self.copied is not None:
            self.copied.synchronize()
        return tuple(part for part, flag in zip(self.parts, self.flags.tolist(), strict=True) if flag)


def _to_host(flags: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Copy to the host without waiting. Returns the copy, and the event after which it can be read."""
    if flags.device.type != "cuda":
        return flags.cpu(), None
    copied = torch.cuda.Event()
    on_host = flags.to("cpu", non_blocking=True)
    copied.record()
    return on_host, copied


class NanGuard:
    """Checks each step, and undoes its changes if it is not finite. All ranks decide the same.

    On a CPU the host reads the result at once. On a GPU it must not wait: a flag on the device makes the optimizer skip
    the step (as a GradScaler's flag does), `undo_if_not_finite` undoes the other changes, and the host reads the flag
    one step later.

    Args:
        on_discard: called for each discarded step. The clock may be one step further by then.
        sticky: after a discarded step, discard all steps until the host has read the flags. For an `on_discard` that
            ends the run.
        late: read the flags one step later. None: if the device is a GPU and the optimizer can skip a step by a flag.
        parts: names of what `check_step` checks, for messages.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        on_discard: Callable[[DiscardedStep], None] = raise_diverged,
        sticky: bool = True,
        late: bool | None = None,
        parts: tuple[str, str, str] = PARTS,
    ):
        assert isinstance(state.model, nn.Module)
        assert isinstance(state.optimizer, torch.optim.Optimizer)
        assert isinstance(state.scaler, torch.amp.GradScaler)
        self.state, self.on_discard, self.sticky, self.parts = state, on_discard, sticky, parts
        self.optimizer, self.scaled = state.optimizer, state.scaler.is_enabled()
        self.trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        can_skip = getattr(state.optimizer, "_step_supports_amp_scaling", False)
        on_gpu = self.trained[0].device.type == "cuda"
        self.late = can_skip and not self.scaled and (on_gpu if late is None else late)  # a GradScaler waits anyway
        self.changed = list_changed_tensors(state.model, dictionary_and_f_k=self.late)
        self.copies = [torch.empty_like(tensor) for tensor in self.changed]
        self.losses: deque[Tensor] = deque(maxlen=REMEMBERED + 1)
        self.bad: Tensor | None = None  # on the device: 1.0 if this step must be discarded, else 0.0
        self.pending: list[Pending] = []  # steps whose flags the host has not read

    @torch.no_grad()
    def remember(self) -> None:
        """Called before a step: copies what its forward passes change (BN statistics)."""
        _copy(self.copies, self.changed)

    @torch.no_grad()
    def check_step(self, loss: Float[Tensor, ""], keys: Float[Tensor, "M C"], ids: Int[Tensor, "N"]) -> bool:
        """Called after the backward pass. Returns whether the step is finite; undoes its changes if it is not.

        With `late` it returns True before the result is known.
        """
        self.losses.append(loss)
        self.read_flags()
        flags = mean_over_ranks(torch.stack([~torch.isfinite(x).all() for x in (loss, keys, self._norms())]).float())
        self.pending.append(Pending(self.state.clock.step, ids, list(self.losses), self.parts, *_to_host(flags)))
        if not self.late or not self.optimizer.state:  # the first step creates the optimizer's state, even if skipped
            self.bad = None
            return not self.read_flags()
        bad = flags.amax().sign()
        self.bad = bad if self.bad is None or not self.sticky else torch.maximum(bad, self.bad)
        self.optimizer.found_inf = self.bad  # pyright: ignore[reportAttributeAccessIssue]
        return True

    @torch.no_grad()
    def undo_if_not_finite(self) -> None:
        """Called at the end of a step: undoes its changes on the device if its flag is set. The host does not wait."""
        if self.bad is not None:
            for tensor, copy in zip(self.changed, self.copies, strict=True):
                torch.where(self.bad > 0, copy, tensor, out=tensor)

    @torch.no_grad()
    def read_flags(self) -> bool:
        """Read the flags on the host. Returns whether a step was discarded.

        While `on_discard` runs, the model is as it was before the discarded step.
        """
        pending, self.pending = self.pending, []
        for one in pending:
            parts = one.list_not_finite()
            if parts:
                later = [tensor.clone() for tensor in self.changed]  # with changes of the next step's forward passes
                _copy(self.changed, self.copies)
                self.on_discard(DiscardedStep(one.step, one.ids, parts, torch.stack(one.losses).tolist()))
                if self.bad is not None:
                    _copy(self.changed, later)
        return any(one.list_not_finite() for one in pending)

    def _norms(self) -> Float[Tensor, "P"]:
        """The norm of each parameter's gradient. With a GradScaler none: it handles infinite gradients itself."""
        gradients = [] if self.scaled else [x.grad for x in self.trained if x.grad is not None]
        return torch.stack(torch._foreach_norm(gradients)) if gradients else self.trained[0].new_zeros(1)


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    """Copy each tensor. torch raises an error for empty lists, which networks without BN have."""
    if into:
        torch._foreach_copy_(into, values)


def list_changed_tensors(model: nn.Module, *, dictionary_and_f_k: bool) -> list[Tensor]:
    """What a step changes besides f_q and the optimizer: BN statistics; if asked, also the dictionary and f_k."""
    buffers: Iterable[tuple[str, Tensor]] = model.named_buffers()
    tensors = [x for name, x in buffers if dictionary_and_f_k or not name.startswith("dictionary.")]
    f_k = getattr(model, "key_encoder", None)
    if dictionary_and_f_k and isinstance(f_k, MomentumEncoder):
        tensors += f_k.parameters()
    return tensors
