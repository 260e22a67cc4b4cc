"""The NaN guard: a step whose loss, keys or gradient are not finite is discarded, and changes nothing."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import mean
from moco.method import MomentumEncoder
from moco.train.checkpoint import TrainState

PARTS = ("loss", "keys", "gradient")  # of a step of Algorithm 1
REMEMBERED = 100  # losses that a report of a discarded step has


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite numbers."""


@dataclass(frozen=True)
class Refusal:
    """A step that was discarded."""

    step: int  # the clock before it
    ids: Int[Tensor, "N"]  # this rank's images
    parts: tuple[str, ...]  # what was not finite, on any rank
    losses: list[float]  # of the steps before it, and its own at the end

    def __str__(self) -> str:
        return f"not finite at step {self.step + 1}: {', '.join(self.parts)} (its loss is {self.losses[-1]})"


def raise_diverged(refusal: Refusal) -> None:
    raise Diverged(str(refusal))


@dataclass(frozen=True)
class Pending:
    """The check of a step; the host may not have read its result yet."""

    step: int
    ids: Tensor
    losses: list[Tensor]
    parts: tuple[str, ...]  # what was checked
    flags: Tensor  # for each of them, on the host: above 0 if not finite
    copied: torch.cuda.Event | None  # recorded when the flags have arrived

    def not_finite(self) -> tuple[str, ...]:
        if self.copied is not None:
            self.copied.synchronize()
        return tuple(part for part, flag in zip(self.parts, self.flags.tolist(), strict=True) if flag)


def _to_host(flags: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host, and the event after which it can be read. Does not wait for the device."""
    if flags.device.type != "cuda":
        return flags.cpu(), None
    copied = torch.cuda.Event()
    on_host = flags.to("cpu", non_blocking=True)
    copied.record()
    return on_host, copied


class Gate:
    """Decides, the same on all ranks, whether optimizer, momentum update and queue may act on a step.

    On a CPU the host reads the flag at once. On a GPU it must not wait: the flag stays on the device, makes the
    optimizer skip the step (as a GradScaler's flag does) and undoes the other changes. The host reads it a step later.

    Args:
        refused: called for each discarded step; the clock may be one step further then.
        sticky: after a discarded step, discard all steps until the host has read the flags: where `refused` ends the
            run.
        late: read the flags a step later; None: where device and optimizer allow it.
        parts: what `admits` checks, as messages name it.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        refused: Callable[[Refusal], None] = raise_diverged,
        sticky: bool = True,
        late: bool | None = None,
        parts: tuple[str, str, str] = PARTS,
    ):
        assert isinstance(state.model, nn.Module)
        assert isinstance(state.optimizer, torch.optim.Optimizer)
        assert isinstance(state.scaler, torch.amp.GradScaler)
        self.state, self.refused, self.sticky, self.parts = state, refused, sticky, parts
        self.optimizer, self.scaled = state.optimizer, state.scaler.is_enabled()
        self.trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        obeys = getattr(state.optimizer, "_step_supports_amp_scaling", False)
        on_gpu = self.trained[0].device.type == "cuda"
        self.late = obeys and not self.scaled and (on_gpu if late is None else late)  # a GradScaler waits anyway
        self.changed = changed_tensors(state.model, dictionary_and_f_k=self.late)
        self.copies = [torch.empty_like(tensor) for tensor in self.changed]
        self.losses: deque[Tensor] = deque(maxlen=REMEMBERED + 1)
        self.bad: Tensor | None = None  # on the device: 1.0 if the present step is to be discarded, else 0.0
        self.pending: list[Pending] = []  # steps whose flags the host has not read

    @torch.no_grad()
    def remember(self) -> None:
        """Before a step: copy what its forward passes change (BN statistics)."""
        _copy(self.copies, self.changed)

    @torch.no_grad()
    def admits(self, loss: Float[Tensor, ""], keys: Float[Tensor, "M C"], ids: Int[Tensor, "N"]) -> bool:
        """Whether the step is finite; called after its backward pass. If not, its changes are undone."""
        self.losses.append(loss)
        self.look()
        flags = mean(torch.stack([~torch.isfinite(x).all() for x in (loss, keys, self._norms())]).float())
        self.pending.append(Pending(self.state.clock.step, ids, list(self.losses), self.parts, *_to_host(flags)))
        if not self.late or not self.optimizer.state:  # the first step creates the optimizer's state, even if skipped
            self.bad = None
            return not self.look()
        bad = flags.amax().sign()
        self.bad = bad if self.bad is None or not self.sticky else torch.maximum(bad, self.bad)
        self.optimizer.found_inf = self.bad  # pyright: ignore[reportAttributeAccessIssue]
        return True

    @torch.no_grad()
    def settle(self) -> None:
        """After a step that the host has not checked yet: undo its changes on the device if its flag says so."""
        if self.bad is not None:
            for tensor, copy in zip(self.changed, self.copies, strict=True):
                torch.where(self.bad > 0, copy, tensor, out=tensor)

    @torch.no_grad()
    def look(self) -> bool:
        """Read the flags on the host, and return whether a step was discarded. `refused` sees the state before it."""
        pending, self.pending = self.pending, []
        for one in pending:
            parts = one.not_finite()
            if parts:
                later = [tensor.clone() for tensor in self.changed]  # with changes of the next step's forward passes
                _copy(self.changed, self.copies)
                self.refused(Refusal(one.step, one.ids, parts, torch.stack(one.losses).tolist()))
                if self.bad is not None:
                    _copy(self.changed, later)
        return any(one.not_finite() for one in pending)

    def _norms(self) -> Float[Tensor, "P"]:
        """The norm of each parameter's gradient. With a GradScaler none: it handles infinite gradients itself."""
        gradients = [] if self.scaled else [x.grad for x in self.trained if x.grad is not None]
        return torch.stack(torch._foreach_norm(gradients)) if gradients else self.trained[0].new_zeros(1)


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    """Copy each tensor. torch refuses empty lists, which networks without BN have."""
    if into:
        torch._foreach_copy_(into, values)


def changed_tensors(model: nn.Module, *, dictionary_and_f_k: bool) -> list[Tensor]:
    """What a step changes besides f_q and the optimizer: BN statistics, and at its end the dictionary and f_k."""
    buffers: Iterable[tuple[str, Tensor]] = model.named_buffers()
    tensors = [x for name, x in buffers if dictionary_and_f_k or not name.startswith("dictionary.")]
    f_k = getattr(model, "key_encoder", None)
    if dictionary_and_f_k and isinstance(f_k, MomentumEncoder):
        tensors += f_k.parameters()
    return tensors
