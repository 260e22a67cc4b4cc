"""MoCo v3 in a single process: keys of the mini-batch, a symmetric loss, a predictor, attention step by step."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moco.encoders.vit import Attention


class ExplicitAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with the attention matrix in memory, using the layers of another attention."""

    def __init__(self, layers: Attention):
        super().__init__()
        self.heads, self.qkv, self.proj = layers.heads, layers.qkv, layers.proj

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, width))


def explicit(network: nn.Module) -> nn.Module:
    """`network` with every attention in it made explicit; weights and names stay."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, Attention):
            network.set_submodule(name, ExplicitAttention(layer))
    return network


class MoCoV3(nn.Module):
    """f_q with its predictor, and f_k."""

    def __init__(self, encoder: nn.Module, predictor: nn.Module, *, temperature: float):
        super().__init__()
        self.base, self.predictor, self.temperature = encoder, predictor, temperature
        self.momentum = copy.deepcopy(encoder)
        for parameter in self.momentum.parameters():
            parameter.requires_grad = False

    def forward(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        """The loss. Also updates f_k."""
        q1, q2 = self.predictor(self.base(x1)), self.predictor(self.base(x2))
        with torch.no_grad():
            for theta_q, theta_k in zip(self.base.parameters(), self.momentum.parameters(), strict=True):
                theta_k.data = theta_k.data * m + theta_q.data * (1.0 - m)
            k1, k2 = self.momentum(x1), self.momentum(x2)
        return self.contrast(q1, k2) + self.contrast(q2, k1)

    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
        logits = torch.einsum("nc,mc->nm", [q, k]) / self.temperature
        return F.cross_entropy(logits, torch.arange(len(q), device=q.device)) * (2 * self.temperature)


def step(moco: MoCoV3, optimizer: torch.optim.Optimizer, x1: Tensor, x2: Tensor, m: float) -> float:
    """One training step. Returns the loss, which such loops print."""
    loss = moco(x1, x2, m)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
