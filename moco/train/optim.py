"""The optimizer of the query encoder."""

import torch
from torch import nn

from moco.recipe import OptimSpec


def optimizer_for(model: nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """SGD with momentum over every parameter of `model` that is trained, BN and biases included (main_moco.py:95-105).

    The key encoder's parameters take no gradient and are left out by name: weight decay must not reach them.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # fused: one kernel a step; foreach is slower than a plain loop on a CPU
    return torch.optim.SGD(trained, lr=0.0, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True)
