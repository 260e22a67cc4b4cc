"""The optimizers: SGD (MoCo v1 and v2), LARS (v3 with a ResNet), AdamW (v3 with a ViT)."""

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from moco.recipe import OptimSpec


def optimizer_for(model: nn.Module, spec: OptimSpec, *, scaled: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimizer of every parameter of `model` that takes a gradient: encoder, predictor, second encoder.

    They are one group, BN and biases included (facebookresearch/moco, main_moco.py:95-105; moco-v3's :224-230). A
    momentum encoder takes no gradient and is left out: weight decay must not reach it.

    Args:
        model: a `Contrast`, or an encoder.
        scaled: a GradScaler is at work. When it skips the first step, torch's fused SGD leaves its momentum
            uninitialized, and the next step makes garbage of the weights (torch 2.14, CPU): then a plain loop.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = not scaled  # one kernel a step; foreach is slower than a plain loop on a CPU
    match spec.optimizer:
        case "sgd":
            return SGD(
                trained, lr=0.0, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=fused, foreach=False
            )
        case "lars":
            return LARS(trained, momentum=spec.momentum, weight_decay=spec.weight_decay, trust=spec.trust)
        case "adamw":  # weight decay of all: biases, LayerNorm and the class token too
            return AdamW(
                trained, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=spec.weight_decay, fused=fused,
                foreach=False,
            )  # fmt: skip


class Uncompiled(torch.optim.Optimizer):
    """torch's optimizers, less what keeps them out of compiled code: it imports the compiler, which takes a second.

    Where torch has no such wrappers, these are its methods themselves.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class AdamW(Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class LARS(Uncompiled):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888), as MoCo v3 has it (moco-v3, optimizer.py:18-43).

    A weight moves in proportion to its own norm. Parameters with one dimension or none, biases and the weights of BN,
    have neither that nor weight decay. No Nesterov, no epsilon, no clipping.

    Args:
        trust: the share of a weight's norm that a step with lr 1 changes.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float = 0.0, momentum: float, weight_decay: float, trust: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of each parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        direction = parameter.grad
        assert direction is not None
        if parameter.ndim > 1:
            direction = direction.add(parameter, alpha=group["weight_decay"])
            size, length = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(direction)
            ratio = group["trust"] * size / length
            direction = direction * ratio.where((size > 0) & (length > 0), 1.0)  # no host sync
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])
