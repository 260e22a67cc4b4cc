"""MoCo v1 and v2 in a single process: a queue, Shuffling BN by a permutation of the mini-batch."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MoCo(nn.Module):
    """f_q, f_k and the queue.

    Args:
        encoder: images to embeddings. Its BN must be split already, or Shuffling BN has no effect.
    """

    queue: Tensor

    def __init__(self, encoder: nn.Module, *, dim: int, size: int, m: float, temperature: float):
        super().__init__()
        self.m, self.temperature, self.size = m, temperature, size
        self.encoder_q, self.encoder_k = encoder, copy.deepcopy(encoder)
        for parameter in self.encoder_k.parameters():
            parameter.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(dim, size), dim=0))  # C x K
        self.oldest = 0

    def forward(self, x_q: Tensor, x_k: Tensor) -> Tensor:
        """The loss. Also updates f_k and the queue."""
        q = F.normalize(self.encoder_q(x_q), dim=1)
        with torch.no_grad():
            self.follow()
            order = torch.randperm(len(x_k))
            k = F.normalize(self.encoder_k(x_k[order]), dim=1)[torch.argsort(order)]
        loss = loss_of(q, k, self.queue, self.temperature)
        self.enqueue(k)
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """The momentum update, with a new tensor for every parameter."""
        for theta_q, theta_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            theta_k.data = theta_k.data * self.m + theta_q.data * (1.0 - self.m)

    @torch.no_grad()
    def enqueue(self, k: Tensor) -> None:
        n = len(k)
        assert self.size % n == 0, "this queue cannot wrap around within a mini-batch"
        self.queue[:, self.oldest : self.oldest + n] = k.t()
        self.oldest = (self.oldest + n) % self.size


def loss_of(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE as a classification with the positive first. Copies the queue, which is modified before backward.

    Args:
        q, k: N x C. queue: C x K.
    """
    l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
    l_neg = torch.einsum("nc,ck->nk", [q, queue.clone().detach()])
    logits = torch.cat([l_pos, l_neg], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def step(moco: MoCo, optimizer: torch.optim.Optimizer, x_q: Tensor, x_k: Tensor) -> float:
    """One training step. Returns the loss, which such loops print."""
    loss = moco(x_q, x_k)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
