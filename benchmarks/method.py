"""The loss over the queue, and the momentum update."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torchvision.models import resnet50

from benchmarks.measure import Result, compare
from moco.method import LookUp, MomentumEncoder, info_nce

N, C, TAU = 256, 128, 0.2


def loss(rounds: int, *, sizes: tuple[int, ...]) -> Iterator[Result]:
    """Forward and backward of Eqn. (1), against the usual form: cloned C x K queue, einsum, concatenation."""
    for size in sizes:
        q, positive, keys = (F.normalize(torch.randn(rows, C), dim=1) for rows in (N, N, size))
        columns = keys.T.contiguous()

        def ours(q: torch.Tensor = q, positive: torch.Tensor = positive, keys: torch.Tensor = keys) -> None:
            info_nce(LookUp(q.clone().requires_grad_(), keys, positive=positive), TAU).backward()

        def reference(q: torch.Tensor = q, positive: torch.Tensor = positive, queue: torch.Tensor = columns) -> None:
            leaf = q.clone().requires_grad_()
            l_pos = torch.einsum("nc,nc->n", [leaf, positive]).unsqueeze(-1)
            l_neg = torch.einsum("nc,ck->nk", [leaf, queue.clone().detach()])
            logits = torch.cat([l_pos, l_neg], dim=1) / TAU
            F.cross_entropy(logits, torch.zeros(N, dtype=torch.long)).backward()

        yield compare(f"loss/K={size}", ours, reference, against="logits concatenated, cross-entropy", rounds=rounds)


def momentum_update(rounds: int) -> Result:
    """Eqn. (2) for a ResNet-50, against a loop that makes each parameter anew."""
    f_q = resnet50(num_classes=C)
    f_k, other = MomentumEncoder(f_q), resnet50(num_classes=C)

    @torch.no_grad()
    def reference() -> None:
        for theta_q, theta_k in zip(f_q.parameters(), other.parameters(), strict=True):
            theta_k.data = theta_k.data * 0.999 + theta_q.data * (1.0 - 0.999)

    return compare(
        "ema/resnet50", lambda: f_k.follow(f_q, 0.999), reference, against="a loop of new tensors", rounds=rounds
    )
