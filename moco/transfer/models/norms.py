"""BatchNorm in detectors: over RoIs, synchronized as in Detectron2, frozen, and with statistics of many batches."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moco.distributed import total, world_size
from moco.recipe import RecipeError


class RoIBatchNorm(nn.BatchNorm2d):
    """BatchNorm over RoIs. An empty batch is returned as it is and does not change the statistics."""

    def forward(self, input: Float[Tensor, "R C h w"]) -> Float[Tensor, "R C h w"]:
        if not self.training or len(input):  # in this order: torch.export must not ask for the length
            return super().forward(input)
        return input * self.weight[:, None, None] + self.bias[:, None, None]


class NaiveSyncBatchNorm(RoIBatchNorm):
    """BatchNorm over all ranks: averages the ranks' means and mean squares.

    Every rank has the same weight, whatever its number of pixels or RoIs; an empty rank has weight 0. The running
    variance is the biased one, unlike torch's. Both are Detectron2's NaiveSyncBatchNorm, which the authors'
    configuration names; torch's SyncBatchNorm does not run on CPUs. With one rank, this is torch's BatchNorm.
    """

    def forward(self, input: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float()
        sums = torch.cat([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))]) / max(x.numel() // x.shape[1], 1)
        counted = sums.new_full((1,), float(x.numel() > 0))
        sums = total(torch.cat([sums, counted]))
        mean, square = (sums[:-1] / sums[-1].clamp(min=1)).chunk(2)
        var = square - mean.square()
        if self.track_running_stats:
            self._track(mean.detach(), var.detach())
        y = (x - mean[:, None, None]) * torch.rsqrt(var + self.eps)[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


class NaiveSyncBatchNormAct(NaiveSyncBatchNorm):
    """NaiveSyncBatchNorm for timm's BatchNormAct2d, a BatchNorm followed by an activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        return self.act(self.drop(super().forward(input)))


def synchronize(module: nn.Module) -> nn.Module:
    """Replace each BatchNorm in `module` by NaiveSyncBatchNorm. Names and tensors stay the same.

    Raises:
        RecipeError: a layer of another class derived from BatchNorm2d, except timm's BatchNormAct2d.
    """
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d) or isinstance(layer, NaiveSyncBatchNorm):
            continue
        settings = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        if type(layer) in (nn.BatchNorm2d, RoIBatchNorm):
            sync = NaiveSyncBatchNorm(*settings)
        elif type(layer).__name__ == "BatchNormAct2d":  # by name: importing timm takes a second
            sync = NaiveSyncBatchNormAct(*settings)
            sync.drop, sync.act = layer.get_submodule("drop"), layer.get_submodule("act")
        else:
            raise RecipeError(
                f"--bn sync needs plain BatchNorm2d layers, and {name} is a {type(layer).__name__}: take --bn tuned or "
                "frozen"
            )
        for kind in ("_parameters", "_buffers"):
            setattr(sync, kind, getattr(layer, kind))
        module.set_submodule(name, sync.train(layer.training))
    return module


def freeze(module: nn.Module) -> nn.Module:
    """Replace each BatchNorm in `module` by a fixed scale and shift: its weights and statistics become buffers."""
    from timm.layers import freeze_batch_norm_2d

    return freeze_batch_norm_2d(module)


class _Moments:
    """Counts and sums of the inputs of a BatchNorm layer, accumulated over batches in float64."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.layer = layer
        self.sums = torch.zeros(2 * layer.num_features + 1, dtype=torch.float64)  # sums, sums of squares, count

    @torch.no_grad()
    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].double()
        others = [0, *range(2, x.ndim)]
        count = x.new_full((1,), x.numel() // x.shape[1])
        self.sums += torch.cat([x.sum(others), x.square().sum(others), count]).cpu()

    def apply(self) -> None:
        """Set the layer's running statistics to those of all batches on all ranks."""
        assert self.layer.running_mean is not None
        assert self.layer.running_var is not None
        sums = total(self.sums)
        count = sums[-1]
        if count < 2:
            return
        mean, square = (sums[:-1] / count).chunk(2)
        self.layer.running_mean.copy_(mean)
        self.layer.running_var.copy_((square - mean.square()) * count / (count - 1))


def precise_bn(model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Replace the running statistics of BatchNorm by those of `batches` with the current weights (PreciseBN).

    A running average lags behind the weights; the authors recompute it over 200 batches before each evaluation
    (TEST.PRECISE_BN in their configuration). Layers are in training mode meanwhile, so each sees what it sees in
    training. Frozen layers do not change.

    Args:
        forward: runs the model, in training mode, on a batch. Its result is not used.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    statistics = [_Moments(layer) for layer in layers if layer.track_running_stats]
    saved = [[x.clone() for x in moments.layer.buffers()] for moments in statistics]
    handles = [moments.layer.register_forward_pre_hook(moments) for moments in statistics]
    try:
        with torch.no_grad():
            for batch in batches:
                forward(batch)
    finally:
        for handle in handles:
            handle.remove()
        for moments, buffers in zip(statistics, saved, strict=True):
            for x, before in zip(moments.layer.buffers(), buffers, strict=True):
                x.copy_(before)
    for moments in statistics:
        moments.apply()


def parameter_groups(model: nn.Module, weight_decay: float, *, of_norms: float = 0.0) -> list[dict[str, Any]]:
    """The trained parameters in two groups for an optimizer. The weight decay of norm layers is `of_norms`.

    Detectron2's WEIGHT_DECAY and WEIGHT_DECAY_NORM (1e-4 and 0); torchvision's examples decay all.
    """
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # pyright: ignore[reportPrivateUsage]
    norms = {id(x) for layer in model.modules() if isinstance(layer, kinds) for x in layer.parameters(recurse=False)}
    trained = [x for x in model.parameters() if x.requires_grad]
    return [
        {"params": [x for x in trained if id(x) not in norms], "weight_decay": weight_decay},
        {"params": [x for x in trained if id(x) in norms], "weight_decay": of_norms},
    ]
