"""The optimizer of the query encoder."""

import torch
from torch import nn

from moco.recipe import OptimSpec


def optimizer_for(model: nn.Module, spec: OptimSpec, *, scaled: bool = False) -> torch.optim.Optimizer:
    """SGD with momentum over every parameter of `model` that is trained, BN and biases included (main_moco.py:95-105).

    The key encoder's parameters take no gradient and are left out: weight decay must not reach them.

    Args:
        scaled: a GradScaler is at work. When it skips the first step, torch's fused SGD leaves its momentum
            uninitialized, and the next step makes garbage of the weights (torch 2.14, CPU): then a plain loop.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # fused: one kernel a step; foreach is slower than a plain loop on a CPU
    return torch.optim.SGD(
        trained, lr=0.0, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=not scaled, foreach=False
    )
