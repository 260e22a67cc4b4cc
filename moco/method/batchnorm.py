"""The images over which BatchNorm computes its statistics: G groups on one device, or all ranks together.

BN groups act as virtual devices: the encoder runs over the G parts of a mini-batch one after the other. So Shuffling BN
(Sec. 3.3) does on one device what it does on G devices, with any backbone that has plain BatchNorm. On a GPU, whose
kernels are many and small that way, the encoder runs once, and its BN layers compute the statistics of G groups.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from moco.distributed import gather, world_size

Module = TypeVar("Module", bound=nn.Module)
BatchNorm = TypeVar("BatchNorm", bound=_BatchNorm)
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TIMM = "BatchNormAct2d"  # timm's subclass, by name: importing timm takes a second


@contextmanager
def bn_group(module: nn.Module, group: int, groups: int) -> Iterator[None]:
    """Context manager: the forward pass inside is part `group` (from 0) of the `groups` parts of one mini-batch.

    After all G passes, the running statistics r are the mean over the groups of the usual update (1 - a) r + a s_g,
    where a is the layer's momentum and s_g the statistics of group g. For that, pass g (from 1) must update with the
    momentum a_g = (a/G) / (1 - (G - g) a/G): the product of all 1 - a_g telescopes to 1 - a, and every s_g gets the
    weight a/G. The layer itself updates with a. So afterwards r is interpolated back to its value before the pass.
    """
    moved = [] if groups == 1 else list(_running(module))
    before = [x.clone() for x, _ in moved]
    yield
    if moved:
        back = [1 - 1 / (groups - (groups - group - 1) * a) for _, a in moved]
        torch._foreach_lerp_([x for x, _ in moved], before, back)


def _running(module: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """Each running statistic that a forward pass updates with a fixed momentum, and that momentum."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats and layer.momentum:
            for x in (layer.running_mean, layer.running_var):
                if x is not None:
                    yield x.data, layer.momentum  # not `x`: autograd would find it modified before backward


def in_groups(module: nn.Module, x: Tensor, members: Iterable[int], groups: int) -> Tensor:
    """module(x), one BN group at a time. The rows of `x` are the equal parts `members` (of `groups`) of a mini-batch.

    The module gets a copy of each part, because some networks change their input in place and a view is encoded more
    than once. The copies take 0.01 % of a step of the demo.
    """
    members = list(members)
    if len(x) % len(members):
        raise ValueError(f"{len(x)} rows do not divide into {len(members)} BN groups of equal size")
    results: list[Tensor] = []
    for group, part in zip(members, x.chunk(len(members)), strict=True):
        with bn_group(module, group, groups):
            results.append(module(part.clone()))
    return results[0] if len(results) == 1 else torch.cat(results)


class GroupedBatchNorm(_BatchNorm):
    """BatchNorm over each of G equal groups of neighbouring rows, in one pass of the network.

    Outputs and gradients are those of `in_groups`, and so are the running statistics; only rounding differs.
    """

    groups = 1

    def _check_input_dim(self, input: Tensor) -> None:
        if self.training and len(input) % self.groups:
            raise ValueError(f"{len(input)} rows do not divide into {self.groups} BN groups of equal size")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or self.groups == 1:
            return super().forward(input)
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(self.groups)
        return self._in_one_kernel(input) if torch.compiler.is_compiling() else self._by_group(input)

    def _by_group(self, x: Tensor) -> Tensor:
        """A call of torch's BatchNorm for each group, with the momenta of `bn_group`."""
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        assert self.momentum is not None
        a = self.momentum
        parts: list[Tensor] = []
        for group, part in enumerate(x.chunk(self.groups)):
            step = (a / self.groups) / (1 - (self.groups - group - 1) * a / self.groups)
            parts.append(F.batch_norm(part, mean, var, self.weight, self.bias, True, step, self.eps))
        return torch.cat(parts)

    def _in_one_kernel(self, x: Tensor) -> Tensor:
        """The statistics of all groups at once, as an expression that torch's compiler fuses with its neighbours."""
        y = x.unflatten(0, (self.groups, -1)).to(torch.promote_types(x.dtype, torch.float32))  # G x n x C x ...
        dims = [1, *range(3, y.ndim)]
        var, mean = torch.var_mean(y, dims, correction=0, keepdim=True)
        if self.track_running_stats:
            self._track(mean.detach(), var.detach(), y[0].numel() // y.shape[2])
        y = (y - mean) * torch.rsqrt(var + self.eps)
        if self.affine:
            shape = (-1, *[1] * (x.ndim - 2))
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.flatten(0, 1).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics with the mean over the groups, each with the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.mean(0).flatten().to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((var.mean(0).flatten() * count / (count - 1)).to(self.running_var.dtype), self.momentum)


def grouped(module: Module, groups: int) -> Module | None:
    """`module` with every BatchNorm replaced in place by GroupedBatchNorm. Names and tensors stay the same.

    None, and nothing is changed, if a layer is a subclass of BatchNorm or averages over all batches (momentum None).
    """
    layers = [one for one in module.modules() if isinstance(one, _BatchNorm)]
    if any(type(one) not in PLAIN or one.momentum is None for one in layers):
        return None
    for layer in _replace(module, GroupedBatchNorm):
        layer.groups = groups
    return module


@contextmanager
def one_group(module: nn.Module) -> Iterator[None]:
    """Context manager: GroupedBatchNorm takes all rows of a pass as one group, whatever their number."""
    layers = [layer for layer in module.modules() if isinstance(layer, GroupedBatchNorm)]
    before = [layer.groups for layer in layers]
    for layer in layers:
        layer.groups = 1
    try:
        yield
    finally:
        for layer, groups in zip(layers, before, strict=True):
            layer.groups = groups


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Context manager: forward passes do not update the running statistics."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class SyncBatchNorm(_BatchNorm):
    """BatchNorm over the mini-batches of all ranks, which must have equal sizes; on one rank, plain BatchNorm.

    torch.nn.SyncBatchNorm does not run on a CPU. Here the ranks' means and variances are gathered (differentiably). The
    total variance is the mean of the variances plus the variance of the means.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected rows of channels, N x C x ..., got {input.ndim} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [0, *range(2, x.ndim)]  # all but the channels
        own = torch.stack([x.mean(dims), x.var(dims, unbiased=False)])  # 2 x C
        means, variances = gather(own[None]).unbind(dim=1)  # W x C each
        mean = means.mean(dim=0)
        var = (variances + (means - mean) ** 2).mean(dim=0)
        if self.track_running_stats:
            self._track(mean.detach(), var.detach(), world_size() * x.numel() // x.shape[1])
        shape = (1, -1, *[1] * (x.ndim - 2))
        y = (x - mean.view(shape)) * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics as torch.nn.BatchNorm does, with the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        a = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), a)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), a)


class SyncBatchNormAct(SyncBatchNorm):
    """SyncBatchNorm for timm's BatchNormAct2d: BatchNorm, then dropout and an activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def synchronized(module: Module) -> Module:
    """`module` with every BatchNorm replaced in place by SyncBatchNorm. Names and tensors stay the same.

    timm's BatchNormAct2d becomes SyncBatchNormAct. With one rank, other subclasses of BatchNorm stay as they are: they
    see the whole mini-batch already.

    Raises:
        ValueError: see `check_synchronizable`.
    """
    check_synchronizable(module)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, _BatchNorm) and type(layer).__name__ == TIMM:
            new = _with_tensors_of(layer, SyncBatchNormAct)
            new.drop, new.act = layer.get_submodule("drop"), layer.get_submodule("act")
            module.set_submodule(name, new)
    _replace(module, SyncBatchNorm)
    return module


def check_synchronizable(module: nn.Module) -> None:
    """Raise ValueError if, with several ranks, a layer is a subclass of BatchNorm whose own behaviour would be lost."""
    for name, layer in module.named_modules() if world_size() > 1 else []:
        known = type(layer) in PLAIN or isinstance(layer, SyncBatchNorm) or type(layer).__name__ == TIMM
        if isinstance(layer, _BatchNorm) and not known:
            raise ValueError(
                f"{name} is a {type(layer).__name__}, and only nn.BatchNorm1d, 2d and 3d can take the statistics of "
                "several ranks together"
            )


def _replace(module: nn.Module, kind: type[BatchNorm]) -> list[BatchNorm]:
    """Replace every plain BatchNorm in `module` by a layer of this kind with the same tensors. Returns the layers."""
    layers: list[BatchNorm] = []
    for name, layer in list(module.named_modules()):
        if type(layer) not in PLAIN:
            continue
        assert isinstance(layer, _BatchNorm)
        layers.append(_with_tensors_of(layer, kind))
        module.set_submodule(name, layers[-1])
    return layers


def _with_tensors_of(layer: _BatchNorm, kind: type[BatchNorm]) -> BatchNorm:
    """A layer of this kind with the settings and the very tensors of `layer`."""
    new = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    for tensors in ("_parameters", "_buffers"):
        setattr(new, tensors, getattr(layer, tensors))
    return new.train(layer.training)
