"""BatchNorm over S parts of a mini-batch: a view puts them side by side, as S times the channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SplitBatchNorm(nn.BatchNorm2d):
    """Image i belongs to part i mod S. The running statistics are the mean over the parts."""

    def __init__(self, num_features: int, splits: int):
        super().__init__(num_features)
        self.splits = splits

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        n, c, h, w = x.shape
        mean, var = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        y = F.batch_norm(
            x.view(n // self.splits, c * self.splits, h, w), mean, var, self.weight.repeat(self.splits),
            self.bias.repeat(self.splits), True, self.momentum, self.eps,
        )  # fmt: skip
        with torch.no_grad():
            self.running_mean.copy_(mean.view(self.splits, c).mean(dim=0))
            self.running_var.copy_(var.view(self.splits, c).mean(dim=0))
        return y.view(n, c, h, w)


def split(network: nn.Module, splits: int) -> nn.Module:
    """`network` with every BatchNorm2d in it split; weights and names stay."""
    for name, layer in list(network.named_modules()):
        if type(layer) is nn.BatchNorm2d:
            parts = SplitBatchNorm(layer.num_features, splits)
            parts.load_state_dict(layer.state_dict())
            network.set_submodule(name, parts)
    return network
