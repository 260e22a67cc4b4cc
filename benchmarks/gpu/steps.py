"""Whole training steps on ready views: ours, as in `moco pretrain`, beside the usual one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from benchmarks.gpu.operations import allow_tf32
from benchmarks.gpu.timing import Bench, Measurement, Part, Work, compare
from moco import recipes
from moco.encoders import build
from moco.method import Contrast
from moco.recipe import Recipe


def resnet50(bench: Bench) -> Recipe:
    """MoCo v2's: 256 images in 8 BN groups, K = 65,536."""
    recipe = recipes.named("moco_v2_r50")
    toy = {
        "encoder.width": 0.125, "data.size": 32, "optim.batch_size": 16, "method.size": 64, "method.bn_groups": 2,
    }  # fmt: skip
    return recipe.but("resnet50-224", toy if bench.toy else {})


def vit(name: str, batch: int, bench: Bench) -> Recipe:
    """MoCo v3's, with a share of its mini-batch."""
    toy = {"encoder.name": "vit_micro", "data.size": 32, "optim.batch_size": 8}
    return recipes.named(name).but(f"{name}-224", toy if bench.toy else {"optim.batch_size": batch})


def with_(recipe: Recipe, **compute: object) -> Recipe:
    return recipe.but(None, {f"compute.{name}": value for name, value in compute.items()})


def ours(recipe: Recipe, bench: Bench, *, tf32: bool = False) -> Work:
    work = step.ours(recipe, bench.device)
    return partial(with_tf32, work, tf32)


def reference(recipe: Recipe, bench: Bench, *, tf32: bool = False) -> Work:
    """In bf16 its whole step runs under autocast, as in public code."""
    work = step.reference(recipe, bench.device)

    def autocast() -> None:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            work()

    return partial(with_tf32, autocast if recipe.compute.precision == "bf16" else work, tf32)


def with_tf32(work: Work, allowed: bool) -> None:
    allow_tf32(allowed)
    work()


def teraflop(recipe: Recipe) -> float:
    """Of a step's networks: forward passes of f_k, and of f_q with twice as much backward; the predictor left out."""
    with torch.device("meta"):
        encoder = build(recipe.encoder, size=recipe.data.size)
        image = torch.zeros(2, 3, recipe.data.size, recipe.data.size)
        with FlopCounterMode(display=False) as counter:
            encoder(image)
    directions = 2 if recipe.method.symmetric else 1
    return counter.get_total_flops() / 2 * 4 * directions * recipe.optim.batch_size / 1e12


def counted(found: Iterator[Measurement], recipe: Recipe) -> Iterator[Measurement]:
    """With the arithmetic rate that each time amounts to."""
    amount = teraflop(recipe)
    for one in found:
        yield one if one.ms is None else one.with_facts(tflops=round(1000 * amount / one.ms, 1))


def resnet_steps(bench: Bench) -> Iterator[Measurement]:
    """Precision, memory format, compilation and CUDA graphs, one after the other."""
    recipe = resnet50(bench)
    bf16 = with_(recipe, precision="bf16")
    works: dict[str, Callable[[], Work]] = {
        "ours, fp32": partial(ours, recipe, bench),
        "ours, tf32": partial(ours, recipe, bench, tf32=True),
        "ours, fp16": partial(ours, with_(recipe, precision="fp16"), bench),
        "ours, bf16": partial(ours, bf16, bench),
        "ours, bf16, NCHW": partial(ours, with_(bf16, channels_last=False), bench),
        "reference, tf32": partial(reference, recipe, bench, tf32=True),
        "reference, bf16": partial(reference, bf16, bench),
    }
    yield from counted(
        compare(f"step, ResNet-50, batch {recipe.optim.batch_size}", works, bench, count=recipe.optim.batch_size),
        recipe,
    )


def compiled_steps(bench: Bench) -> Iterator[Measurement]:
    recipe = with_(resnet50(bench), precision="bf16")
    works: dict[str, Callable[[], Work]] = {"ours, bf16, again": partial(ours, recipe, bench)}
    if bench.device.type == "cuda":
        graphs = {"compile": True, "cuda_graphs": True}
        works |= {
            "ours, bf16, compiled": partial(ours, with_(recipe, compile=True), bench),
            "ours, bf16, compiled, CUDA graphs": partial(ours, with_(recipe, **graphs), bench),
        }
    yield from counted(
        compare(f"step, ResNet-50, batch {recipe.optim.batch_size}", works, bench, count=recipe.optim.batch_size),
        recipe,
    )


class InLayers(nn.BatchNorm2d):
    """BN of G groups inside of the layer, so that all other layers see the whole mini-batch."""

    groups: int
    fused: bool  # one pass with grouped statistics, for the compiler; otherwise a kernel for each group

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.fused:
            parts = [
                torch.nn.functional.batch_norm(
                    part, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1 / self.groups, self.eps
                )
                for part in x.chunk(self.groups)
            ]
            return torch.cat(parts)
        y = x.unflatten(0, (self.groups, -1)).float()  # G x n x C x H x W
        var, mean = torch.var_mean(y, dim=(1, 3, 4), keepdim=True, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(1).mean(0), 0.1)
            self.running_var.lerp_(var.flatten(1).mean(0), 0.1)
        shape = (1, 1, -1, 1, 1)
        y = (y - mean) * torch.rsqrt(var + self.eps) * self.weight.view(shape) + self.bias.view(shape)
        return y.flatten(0, 1).to(x.dtype)


def in_layers(recipe: Recipe, bench: Bench, *, fused: bool, compiled: bool) -> Work:
    """Our step with one pass of the encoder over all groups. Without a shuffle, which takes no time."""
    state = step.state(recipe.but(None, {"method.bn": "plain"}), bench.device)
    assert isinstance(state.model, Contrast)
    for layer in state.model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__, layer.groups, layer.fused = InLayers, recipe.groups, fused  # pyright: ignore
    if compiled:
        for encoder in (state.model.encoder, state.model.key_encoder):
            assert encoder is not None
            encoder.compile()
    return step.ours_of(state, recipe, bench.device)


def bn_groups(bench: Bench) -> Iterator[Measurement]:
    """8 groups one after the other, in the layers, and one group alone."""
    recipe = with_(resnet50(bench), precision="bf16")
    one = recipe.but(None, {"method.bn": "plain"})
    works: dict[str, Callable[[], Work]] = {
        "groups one after the other": partial(ours, recipe, bench),
        "one group": partial(ours, one, bench),
        "groups in the layers, a kernel each": partial(in_layers, recipe, bench, fused=False, compiled=False),
    }
    if bench.device.type == "cuda":
        works |= {
            "one group, compiled": partial(ours, with_(one, compile=True), bench),
            "groups in the layers, fused, compiled": partial(in_layers, recipe, bench, fused=True, compiled=True),
        }
    else:
        works["groups in the layers, fused"] = partial(in_layers, recipe, bench, fused=True, compiled=False)
    yield from compare(f"BN groups: {recipe.groups}, bf16", works, bench, count=recipe.optim.batch_size)


def vit_steps(name: str, batch: int, bench: Bench) -> Iterator[Measurement]:
    recipe = with_(vit(name, batch, bench), precision="bf16")
    works: dict[str, Callable[[], Work]] = {
        "ours, bf16": partial(ours, recipe, bench),
        "reference, bf16": partial(reference, recipe, bench),
    }
    if bench.device.type == "cuda":
        works["ours, bf16, compiled"] = partial(ours, with_(recipe, compile=True), bench)
    title = f"step, {recipe.encoder.name}, batch {recipe.optim.batch_size}"
    yield from counted(compare(title, works, bench, count=recipe.optim.batch_size), recipe)


PARTS: Sequence[Part] = [
    Part("resnet50", resnet_steps),
    Part("resnet50-compiled", compiled_steps),
    Part("vit-small", partial(vit_steps, "moco_v3_vit_small", 256)),
    Part("vit-base", partial(vit_steps, "moco_v3_vit_base", 256)),
    Part("bn-groups", bn_groups),
]
