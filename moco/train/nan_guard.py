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

PARTS = ("loss", "keys", "gradient")
REMEMBERED = 100  # losses before a refused step


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite numbers."""


@dataclass(frozen=True)
class Refusal:
    """A step that was discarded."""

    step: int  # the clock's before it
    ids: Int[Tensor, "N"]  # this rank's images
    parts: tuple[str, ...]  # what was not finite, on any rank
    losses: list[float]  # of the steps before it, and its own at the end

    def __str__(self) -> str:
        return f"not finite at step {self.step + 1}: {', '.join(self.parts)} (its loss is {self.losses[-1]})"


def raise_diverged(refusal: Refusal) -> None:
    raise Diverged(str(refusal))


@dataclass(frozen=True)
class Pending:
    """The check of a step, whose result the host may not have read yet."""

    step: int
    ids: Tensor
    losses: list[Tensor]
    flags: Tensor  # of PARTS, above 0: not finite; on the host
    copied: torch.cuda.Event | None  # when they are there

    def not_finite(self) -> tuple[str, ...]:
        if self.copied is not None:
            self.copied.synchronize()
        return tuple(part for part, flag in zip(PARTS, self.flags.tolist(), strict=True) if flag)


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

    On a CPU the host looks at once. On a GPU it must not wait: the flag stays on the device, where the optimizer obeys
    it (as it does a GradScaler's) and what else has changed is put back by it; the host looks a step later.

    Args:
        refused: called for each step that was not taken; the clock may be one step further then.
        sticky: once refused, always refused, until the host has looked: for `refused` that ends the run.
        late: None: as the device and the optimizer allow.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        refused: Callable[[Refusal], None] = raise_diverged,
        sticky: bool = True,
        late: bool | None = None,
    ):
        assert isinstance(state.model, nn.Module)
        assert isinstance(state.optimizer, torch.optim.Optimizer)
        assert isinstance(state.scaler, torch.amp.GradScaler)
        self.state, self.refused, self.sticky = state, refused, sticky
        self.optimizer, self.scaled = state.optimizer, state.scaler.is_enabled()
        self.trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        obeys = getattr(state.optimizer, "_step_supports_amp_scaling", False)
        on_gpu = self.trained[0].device.type == "cuda"
        self.late = obeys and not self.scaled and (on_gpu if late is None else late)  # a GradScaler's step waits anyway
        self.kept = kept(state.model, dictionary_and_f_k=self.late)
        self.copies = [torch.empty_like(tensor) for tensor in self.kept]
        self.losses: deque[Tensor] = deque(maxlen=REMEMBERED + 1)
        self.bad: Tensor | None = None  # on the device, 1.0 or 0.0: whether the step that runs is refused
        self.pending: list[Pending] = []  # what the host has not looked at

    @torch.no_grad()
    def remember(self) -> None:
        """Before a step: copy what its forward passes change (the statistics of BN)."""
        _copy(self.copies, self.kept)

    @torch.no_grad()
    def admits(self, loss: Float[Tensor, ""], keys: Float[Tensor, "M C"], ids: Int[Tensor, "N"]) -> bool:
        """Whether the step is finite, now that its gradient is known. If not, its changes are undone."""
        self.losses.append(loss)
        self.look()
        flags = mean(torch.stack([~torch.isfinite(x).all() for x in (loss, keys, self._norms())]).float())
        self.pending.append(Pending(self.state.clock.step, ids, list(self.losses), *_to_host(flags)))
        if not self.late or not self.optimizer.state:  # a first step may make the optimizer's state, wanted or not
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
            for tensor, copy in zip(self.kept, self.copies, strict=True):
                torch.where(self.bad > 0, copy, tensor, out=tensor)

    @torch.no_grad()
    def look(self) -> bool:
        """Read the flags on the host: whether a step was discarded. `refused` sees the state as before that step."""
        pending, self.pending = self.pending, []
        for one in pending:
            parts = one.not_finite()
            if parts:
                began = [tensor.clone() for tensor in self.kept]  # changes by the forward passes of the next step
                _copy(self.kept, self.copies)
                self.refused(Refusal(one.step, one.ids, parts, torch.stack(one.losses).tolist()))
                if self.bad is not None:
                    _copy(self.kept, began)
        return any(one.not_finite() for one in pending)

    def _norms(self) -> Float[Tensor, "P"]:
        """The norm of each parameter's gradient. With a GradScaler none: it handles infinite gradients itself."""
        gradients = [] if self.scaled else [x.grad for x in self.trained if x.grad is not None]
        return torch.stack(torch._foreach_norm(gradients)) if gradients else self.trained[0].new_zeros(1)


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    """Copy each tensor; torch refuses empty lists, and networks without BN have no buffers."""
    if into:
        torch._foreach_copy_(into, values)


def kept(model: nn.Module, *, dictionary_and_f_k: bool) -> list[Tensor]:
    """What a step changes besides f_q and the optimizer: statistics of BN; at its end the dictionary and f_k."""
    buffers: Iterable[tuple[str, Tensor]] = model.named_buffers()
    tensors = [x for name, x in buffers if dictionary_and_f_k or not name.startswith("dictionary.")]
    f_k = getattr(model, "key_encoder", None)
    if dictionary_and_f_k and isinstance(f_k, MomentumEncoder):
        tensors += f_k.parameters()
    return tensors
