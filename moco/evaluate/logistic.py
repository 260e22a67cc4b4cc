"""Multinomial logistic regression on features that fit into memory: to its optimum, by L-BFGS."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ROWS_AT_A_TIME = 65536  # whose logits are in memory at a time
ITERATIONS = 300  # at most; a few thousand images need tens of iterations


class Standardization(NamedTuple):
    """The shift and scale that give each dimension mean 0 and standard deviation 1."""

    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]

    @classmethod
    def of(cls, x: Float[Tensor, "n D"]) -> "Standardization":
        """From features. A dimension that does not vary becomes 0."""
        std, mean = torch.std_mean(x, dim=0, correction=0)
        return cls(mean, torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std)))

    def __call__(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        return (x - self.mean) / self.std


class Logistic(NamedTuple):
    """A linear classifier."""

    weight: Float[Tensor, "classes D"]
    bias: Float[Tensor, "classes"]

    def __call__(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n classes"]:
        """The logits."""
        return F.linear(x, self.weight, self.bias)

    def predict(self, x: Float[Tensor, "n D"]) -> Int[Tensor, "n"]:
        return torch.cat([self(part).argmax(dim=1) for part in x.split(ROWS_AT_A_TIME)])


def fit(
    x: Float[Tensor, "n D"], labels: Int[Tensor, "n"], *, classes: int, l2: float, start: Logistic | None = None
) -> Logistic:
    """The minimum of mean cross-entropy + l2 / 2 * |weight|^2. The bias is free of the penalty.

    The same objective as scikit-learn's LogisticRegression(C=1 / (l2 * n)).

    Args:
        x: standardized features, on the device to compute on.
        start: initial weights; they change the time, not the result.
    """
    if len(x) < x.shape[1]:  # the weights of the minimum lie in the span of the images: fewer unknowns
        basis = torch.linalg.qr(x.T).Q
        inside = None if start is None else Logistic(start.weight @ basis, start.bias)
        found = fit(x @ basis, labels, classes=classes, l2=l2, start=inside)
        return Logistic(found.weight @ basis.T, found.bias)
    start = start or Logistic(x.new_zeros(classes, x.shape[1]), x.new_zeros(classes))
    weight, bias = (part.clone().requires_grad_() for part in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        total = l2 / 2 * weight.square().sum()
        total.backward()
        for rows, answers in zip(x.split(ROWS_AT_A_TIME), labels.split(ROWS_AT_A_TIME), strict=True):
            part = F.cross_entropy(F.linear(rows, weight, bias), answers, reduction="sum") / len(x)
            part.backward()
            total = total.detach() + part.detach()
        return total

    with torch.enable_grad():
        optimizer.step(objective)  # pyright: ignore[reportArgumentType]
    return Logistic(weight.detach(), bias.detach())
