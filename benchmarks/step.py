"""A training step: ours, as in `moco pretrain`, and the usual one."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import memory, peers
from benchmarks.measure import Result, Row, Work, absent, compare, installed, interleaved, result
from benchmarks.reference import batchnorm, queue, v3
from moco import recipes
from moco.encoders import build
from moco.encoders.heads import predictor
from moco.method import Contrast
from moco.recipe import Recipe
from moco.train.build import contrast_for, in_format, precision_of, scaler_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.nan_guard import NanGuard
from moco.train.optim import optimizer_for

CPU = torch.device("cpu")
STEPS = 1000  # per epoch, so that schedules are at their start
AGAINST = {
    "queue": "split BN by a view, EMA by a loop, all logits, NCHW; lower bound: the networks alone",
    "batch": "explicit attention, EMA by a loop, AdamW by a loop; lower bound: the networks alone",
}
LR = {"sgd": 0.03, "adamw": 1e-4}  # of the reference, constant


def resnet18() -> Recipe:
    """The CIFAR notebook's, batch 128 in 4 BN groups."""
    return recipes.named("moco_cifar").but("resnet18-32", {"optim.batch_size": 128, "method.bn_groups": 4})


def resnet50() -> Recipe:
    """MoCo v2's, batch 16 in 4 BN groups."""
    return recipes.named("moco_v2_r50").but("resnet50-224", {"optim.batch_size": 16, "method.bn_groups": 4})


def vit_small() -> Recipe:
    """MoCo v3's, batch 4, in float32."""
    changes = {"optim.batch_size": 4, "compute.precision": "fp32"}
    return recipes.named("moco_v3_vit_small").but("vit-small-224", changes)


def views(recipe: Recipe, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Random tensors in place of the two views of a mini-batch, NCHW."""
    rng, size = torch.Generator(device).manual_seed(1), recipe.data.size
    shape = recipe.optim.batch_size, 3, size, size
    x_q, x_k = (torch.randn(shape, generator=rng, device=device) for _ in range(2))
    return x_q, x_k


def state(recipe: Recipe, device: torch.device = CPU) -> TrainState:
    """The state of a run before its first step."""
    contrast = contrast_for(recipe, device, num_images=100_000, model=None, init=None, say=print)
    clock = Clock(STEPS, round(recipe.optim.epochs * STEPS))
    return TrainState(contrast, optimizer_for(contrast, recipe.optim), clock, scaler_for(recipe, device))


def ours(recipe: Recipe, device: torch.device = CPU) -> Work:
    """A step of `moco.train.loop.train` on ready views in channels_last, as from our loader."""
    return ours_of(state(recipe, device), recipe, device)


def ours_of(state: TrainState, recipe: Recipe, device: torch.device = CPU) -> Work:
    """The same with a given state, which each call advances by a step."""
    batch = list(views(recipe, device)), torch.arange(recipe.optim.batch_size, device=device)
    (batch,) = in_format([batch], recipe)
    assert isinstance(state.model, Contrast)
    model, guard, precision = state.model, NanGuard(state), precision_of(recipe, device)

    def step() -> None:
        train(
            model, state, in_format([batch], recipe), lr=recipe.optim.lr, m=recipe.method.momentum, seed=recipe.seed,
            after_step=lambda *_: None, guard=guard, precision=precision,
        )  # fmt: skip

    return step


def reference(recipe: Recipe, device: torch.device = CPU) -> Work:
    """The usual step of the same network."""
    torch.manual_seed(0)
    encoder, (x_q, x_k) = build(recipe.encoder, size=recipe.data.size), views(recipe, device)
    if recipe.method.dictionary == "batch":
        head = predictor(recipe.encoder, recipe.method.predictor)
        assert head is not None
        moco = v3.MoCoV3(v3.explicit(encoder), head, temperature=recipe.method.temperature).to(device)
        return partial(v3.step, moco, _default_optimizer(moco, recipe), x_q, x_k, 0.99)
    assert recipe.method.size is not None
    moco = queue.MoCo(
        batchnorm.split(encoder, recipe.groups), dim=recipe.encoder.dim, size=recipe.method.size,
        m=recipe.method.momentum(0, 1), temperature=recipe.method.temperature,
    ).to(device)  # fmt: skip
    return partial(queue.step, moco, _default_optimizer(moco, recipe), x_q, x_k)


def _default_optimizer(moco: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    spec, lr = recipe.optim, LR[recipe.optim.optimizer]
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(moco.parameters(), lr, weight_decay=spec.weight_decay)
    return torch.optim.SGD(moco.parameters(), lr, momentum=spec.momentum, weight_decay=spec.weight_decay)


def lower_bound(recipe: Recipe) -> Work:
    """What every step needs: f_k forward, f_q forward and backward, in the same BN groups. No loss, no update."""
    contrast = state(recipe).model
    assert isinstance(contrast, Contrast)
    assert contrast.key_encoder is not None
    key_encoder = contrast.key_encoder
    ((both, _),) = in_format([(list(views(recipe)), torch.arange(0))], recipe)
    grads = torch.randn(recipe.optim.batch_size, recipe.encoder.dim)

    def step() -> None:
        contrast.zero_grad(set_to_none=True)
        for a, b in contrast.directions:
            for x_q, x_k, grad in zip(*(x.chunk(recipe.groups) for x in (both[a], both[b], grads)), strict=True):
                key_encoder(x_k)
                contrast.predictor(contrast.encoder(x_q)).backward(grad)

    return step


def row(make: Callable[[], Recipe], rounds: int, *, with_memory: bool = False) -> Iterator[Result]:
    """Our step against the usual one. `with_memory`: also the peak memory of both, in new processes."""
    recipe = make()
    times = interleaved(
        {"ours": ours(recipe), "usual": reference(recipe), "lower_bound": lower_bound(recipe)}, rounds=rounds
    )  # fmt: skip
    yield result(
        f"step/{recipe.name}", times["ours"], times["usual"], lower_bound=times["lower_bound"],
        memory=peaks(recipe) if with_memory else (None, None), against=AGAINST[recipe.method.dictionary],
    )  # fmt: skip


def against_lightly(peer: str, make: Callable[[], Recipe], rounds: int) -> Iterator[Result]:
    """Our step against one of lightly's loops."""
    recipe = make()
    name, (x_q, x_k), size = f"step/{recipe.name}/{peer}", views(recipe), recipe.method.size
    assert size is not None
    if not installed("lightly"):
        yield absent(name, "lightly")
        return
    if peer == "lightly-tutorial":
        loop, what = peers.lightly_tutorial(x_q, x_k, size=size, splits=recipe.groups), "tutorial: split BN, shuffled"
    else:
        loop, what = peers.lightly_example(x_q, x_k, size=size), "example: plain BN, nothing shuffled"
    yield compare(name, ours(recipe), loop, against=f"{peers.lightly_name()}, its {what}", rounds=rounds)


def peaks(recipe: Recipe) -> tuple[float | None, float | None]:
    """Peak memory [MB] of a process that trains, ours and the usual one, including torch, weights and optimizer."""
    mine, usual = (memory.total_mb(memory.peak(partial(second_step, side, recipe))) for side in (ours, reference))
    return mine, usual


def second_step(side: Callable[[Recipe], Work], recipe: Recipe) -> Work:
    """A step, after a first one that does one-time initialization."""
    work = side(recipe)
    work()
    return work


ROWS = [
    Row("step/demo", partial(row, partial(recipes.named, "demo"))),
    Row("step/resnet18-32", partial(row, resnet18), slow=True),
    Row("step/resnet18-32/lightly-tutorial", partial(against_lightly, "lightly-tutorial", resnet18), slow=True),
    Row("step/resnet18-32/lightly-example", partial(against_lightly, "lightly-example", resnet18), slow=True),
    Row("step/resnet50-224", partial(row, resnet50, with_memory=True), slow=True),
    Row("step/vit-small-224", partial(row, vit_small), slow=True),
]
