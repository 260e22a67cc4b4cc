"""Eqn. (2): the momentum update."""

import copy

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """The key encoder f_k of Eqn. (2): it follows the query encoder f_q and never sees a gradient."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(encoder).requires_grad_(False)  # f_k.params = f_q.params

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)

    @torch.no_grad()
    def follow(self, encoder: nn.Module, m: float) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q, in float32. BN running statistics are not copied: f_k has its own."""
        theta_k, theta_q = list[Tensor](self.module.parameters()), list[Tensor](encoder.parameters())
        torch._foreach_lerp_(theta_k, theta_q, 1 - m)
