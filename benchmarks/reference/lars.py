"""LARS as a loop over the parameters that reads each norm on the host."""

from collections.abc import Iterable

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Trust ratio and weight decay only for tensors of two or more dimensions."""

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float, trust: float):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                update = weight.grad
                if weight.ndim > 1:
                    update = update + group["weight_decay"] * weight
                    size, length = weight.norm().item(), update.norm().item()
                    if size > 0 and length > 0:
                        update = update * (group["trust"] * size / length)
                state = self.state[weight]
                before = state["velocity"] if "velocity" in state else torch.zeros_like(weight)
                state["velocity"] = before * group["momentum"] + update
                weight.sub_(group["lr"] * state["velocity"])
