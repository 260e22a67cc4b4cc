"""Whole training steps on ready views: ours, as in `moco pretrain`, beside the usual one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from benchmarks.gpu.operations import allow_tf32
from benchmarks.gpu.timing import Bench, Measurement, Part, Work, compare
from moco import recipes
from moco.encoders import build
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
    """Precision, memory format, and BN groups in one pass or in turn."""
    recipe = resnet50(bench)
    bf16 = with_(recipe, precision="bf16", one_pass=True)
    works: dict[str, Callable[[], Work]] = {
        "ours, bf16, BN groups in turn": partial(ours, with_(bf16, one_pass=False), bench),
        "ours, fp32": partial(ours, with_(bf16, precision="fp32"), bench),
        "ours, tf32": partial(ours, with_(bf16, precision="fp32"), bench, tf32=True),
        "ours, fp16": partial(ours, with_(bf16, precision="fp16"), bench),
        "ours, bf16": partial(ours, bf16, bench),
        "ours, bf16, NCHW": partial(ours, with_(bf16, channels_last=False), bench),
        "ours, bf16, one BN group": partial(ours, bf16.but(None, {"method.bn": "plain"}), bench),
        "reference, tf32": partial(reference, recipe, bench, tf32=True),
        "reference, bf16": partial(reference, bf16, bench),
    }
    yield from counted(
        compare(f"step, ResNet-50, batch {recipe.optim.batch_size}", works, bench, count=recipe.optim.batch_size),
        recipe,
    )


def compiled_steps(bench: Bench) -> Iterator[Measurement]:
    """The same step by torch's compiler, with and without CUDA graphs."""
    recipe = with_(resnet50(bench), precision="bf16", one_pass=True)
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


def vit_steps(name: str, batch: int, compiles: bool, bench: Bench) -> Iterator[Measurement]:
    recipe = with_(vit(name, batch, bench), precision="bf16")
    works: dict[str, Callable[[], Work]] = {
        "ours, bf16": partial(ours, recipe, bench),
        "reference, bf16": partial(reference, recipe, bench),
    }
    if bench.device.type == "cuda" and compiles:
        works["ours, bf16, compiled"] = partial(ours, with_(recipe, compile=True), bench)
    title = f"step, {recipe.encoder.name}, batch {recipe.optim.batch_size}"
    yield from counted(compare(title, works, bench, count=recipe.optim.batch_size), recipe)


PARTS: Sequence[Part] = [
    Part("resnet50", resnet_steps),
    Part("resnet50-compiled", compiled_steps),
    Part("vit-small", partial(vit_steps, "moco_v3_vit_small", 256, True)),
    Part("vit-base", partial(vit_steps, "moco_v3_vit_base", 256, False)),
]
