"""The optimizers: SGD (MoCo v1 and v2), LARS (v3 with a ResNet), AdamW (v3 with a ViT)."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from moco.recipe import OptimSpec
from moco.startup import without_compiler

CHUNK = 1 << 19  # numbers that LARS updates at a time on a CPU, whose cache holds them


def optimizer_for(model: nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """The recipe's optimizer of every parameter of `model` that takes a gradient: encoder, predictor, second encoder.

    They are one group, BN and biases included (facebookresearch/moco, main_moco.py:95-105; moco-v3's :224-230). A
    momentum encoder takes no gradient and is left out: weight decay must not reach it.

    SGD and AdamW are one kernel a step ("fused"; foreach is slower than a plain loop on a CPU).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match spec.optimizer:
        case "sgd":
            sgd = SGD(
                trained, lr=0.0, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
            )  # fmt: skip
            for parameter in trained if spec.momentum else []:
                # torch's begins with the first step, and if a GradScaler skips that one, with garbage (torch 2.14, CPU)
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return sgd
        case "lars":
            return LARS(trained, momentum=spec.momentum, weight_decay=spec.weight_decay, trust=spec.trust)
        case "adamw":  # weight decay of all: biases, LayerNorm and the class token too
            return AdamW(
                trained, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=spec.weight_decay, fused=True
            )  # fmt: skip


class Uncompiled(torch.optim.Optimizer):
    """torch's optimizer methods without the wrappers that import torch's compiler."""

    add_param_group = without_compiler(torch.optim.Optimizer.add_param_group)
    zero_grad = without_compiler(torch.optim.Optimizer.zero_grad)
    state_dict = without_compiler(torch.optim.Optimizer.state_dict)
    load_state_dict = without_compiler(torch.optim.Optimizer.load_state_dict)


class SGD(Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(without_compiler(torch.optim.SGD.step))


class AdamW(Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(without_compiler(torch.optim.AdamW.step))


class LARS(Uncompiled):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888), as MoCo v3 has it (moco-v3, optimizer.py:18-43).

    A weight moves in proportion to its own norm. Parameters with one dimension or none, biases and the weights of BN,
    have neither such a scaling nor weight decay. No Nesterov, no epsilon, no clipping.

    Args:
        trust: the share of a weight's norm that a step with lr 1 changes.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float = 0.0, momentum: float, weight_decay: float, trust: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update each parameter that has a gradient. Norms stay on the device."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            for weights in _chunks(parameter for parameter in moved if parameter.ndim > 1):
                directions = torch._foreach_add(_gradients(weights), weights, alpha=group["weight_decay"])
                size, length = (torch.stack(torch._foreach_norm(x)) for x in (weights, directions))
                ratio = group["trust"] * size / length
                ratio = ratio.where((size > 0) & (length > 0), 1.0)
                self._update(weights, list(directions), list(ratio.unbind()), group)
            for others in _chunks(parameter for parameter in moved if parameter.ndim <= 1):
                self._update(others, _gradients(others), [others[0].new_ones(())] * len(others), group)

    def _update(
        self, parameters: list[Tensor], directions: list[Tensor], ratios: list[Tensor], group: dict[str, Any]
    ) -> None:
        buffers: list[Tensor] = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcmul_(buffers, directions, ratios)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _chunks(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters in lists of at most `CHUNK` numbers, or of one parameter; on a GPU in one list: few kernels."""
    some: list[Tensor] = []
    for parameter in parameters:
        if some and parameter.device.type == "cpu" and sum(one.numel() for one in some) + parameter.numel() > CHUNK:
            yield some
            some = []
        some.append(parameter)
    if some:
        yield some
