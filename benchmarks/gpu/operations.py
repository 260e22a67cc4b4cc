"""Single operations: peak rates of the GPU, the loss, updates, changes of colour, kNN."""

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.timing import Bench, Measurement, Part, Work, compare
from benchmarks.reference import queue
from benchmarks.reference.lars import LARS
from moco.data.augment.colour import colour
from moco.data.augment.random_parameters import look, random_numbers
from moco.encoders import build
from moco.encoders.vit import VITS, ViT
from moco.evaluate.knn import nearest
from moco.method import LookUp, MomentumEncoder
from moco.method.loss import compare as compare_streamed
from moco.recipe import EncoderSpec, OptimSpec
from moco.recipes.moco_v2 import V2_VIEW
from moco.train.optim import optimizer_for

N, C, TAU = 256, 128, 0.2
BLOCKS = (1024, 32768, None)  # keys at a time; None: the default for the device


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


# --- ceilings


def ceilings(bench: Bench) -> Iterator[Measurement]:
    """The matrix product of each precision, on random numbers, and a copy. `rate` is TFLOP/s or GB/s."""
    side, numbers = bench.size(8192, 256), bench.size(1 << 29, 1 << 16)
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, False),
    ):  # fmt: skip
        allow_tf32(tf32)
        a, b = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        found = compare("ceiling", {f"matrix product, {name}": lambda a=a, b=b: lambda: a @ b}, bench)
        yield from (rated(one, 2 * side**3 / 1e12, "TFLOP") for one in found)
    allow_tf32(False)
    source = torch.randn(numbers, device=bench.device)
    target = torch.empty_like(source)
    found = compare("ceiling", {"copy, read and written": lambda: lambda: target.copy_(source)}, bench)
    yield from (rated(one, 8 * numbers / 1e9, "GB") for one in found)


def rated(one: Measurement, amount: float, unit: str) -> Measurement:
    """With the rate of an `amount` per call."""
    return one if one.ms is None else replace(one, rate=round(1000 * amount / one.ms, 1), unit=unit)


# --- the loss


def gradient(loss_of: Callable[[LookUp, float], tuple[Tensor, Tensor]], q: Tensor, k: Tensor, keys: Tensor) -> Tensor:
    """Forward and backward. Returns dL/dq."""
    leaf = q.detach().requires_grad_()
    loss_of(LookUp(leaf, keys, positive=k), TAU)[0].backward()
    assert leaf.grad is not None
    return leaf.grad


def usual_gradient(q: Tensor, k: Tensor, columns: Tensor) -> Tensor:
    leaf = q.detach().requires_grad_()
    queue.loss_of(leaf, k, columns, TAU).backward()
    assert leaf.grad is not None
    return leaf.grad


def loss(size: int, toy: int, bench: Bench) -> Iterator[Measurement]:
    """Eqn. (1), forward and backward, for 256 queries: time, memory and the gradient's error against float64."""
    allow_tf32(False)
    size = bench.size(size, toy)
    rng = torch.Generator(bench.device).manual_seed(0)
    q, k, keys = (F.normalize(torch.randn(rows, C, generator=rng, device=bench.device), dim=1) for rows in (N, N, size))
    few = slice(0, 16)
    columns = keys.T.contiguous()
    exact = usual_gradient(q[few].double(), k[few].double(), columns.double())
    works: dict[str, Callable[..., Tensor]] = {
        "reference: all logits, cross-entropy": lambda q, k: usual_gradient(q, k, columns),
        **{
            f"ours, {'default' if block is None else f'blocks of {block:,}'}": partial(
                loss_by, partial(compare_streamed, block=block), keys
            )
            for block in BLOCKS
        },
    }
    prepared = {name: partial(prepare, work, q, k) for name, work in works.items()}
    for one in compare(f"loss, K = {size:,}", prepared, bench):
        if one.error is None:
            got = works[one.variant](q[few], k[few]).double()
            one = one.with_facts(gradient_error=float(f"{(got - exact).norm() / exact.norm():.1e}"))
        yield one


def loss_by(loss_of: Callable[[LookUp, float], tuple[Tensor, Tensor]], keys: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return gradient(loss_of, q, k, keys)


def prepare(work: Callable[..., object], *operands: object) -> Work:
    return partial(work, *operands)


# --- updates


def copied(network: nn.Module, streams: float) -> Work:
    """A copy of as many numbers as an update reads and writes: `streams` per parameter."""
    count = int(sum(one.numel() for one in network.parameters()) * streams / 2)
    target, source = (torch.zeros(count, device=next(network.parameters()).device) for _ in range(2))
    return partial(target.copy_, source)


def momentum_update(bench: Bench) -> Iterator[Measurement]:
    """Eqn. (2) for a ResNet-50."""
    f_q = network(bench, "resnet50")
    f_k = MomentumEncoder(f_q).to(bench.device)
    usual = queue.MoCo(f_q, dim=C, size=N, m=0.999, temperature=TAU).to(bench.device)
    yield from compare(
        "momentum update, ResNet-50",
        {
            "ours": lambda: lambda: f_k.follow(f_q, 0.999), "reference: a loop of new tensors": lambda: usual.follow,
            "a copy of as much": lambda: copied(f_q, 3),
        },
        bench,
    )  # fmt: skip


def network(bench: Bench, name: str) -> nn.Module:
    if name == "resnet50":
        spec = EncoderSpec(name=name, width=0.25 if bench.toy else 1.0)
        return build(spec, size=224).to(bench.device)
    return ViT(VITS["vit_micro" if bench.toy else name]).to(bench.device)


OPTIMIZERS = {  # name -> network, settings, numbers read and written per parameter
    "SGD, ResNet-50": ("resnet50", OptimSpec(optimizer="sgd", weight_decay=1e-4), 5),
    "AdamW, ViT-B": ("vit_base", OptimSpec(optimizer="adamw", weight_decay=0.1), 7),
    "LARS, ResNet-50": ("resnet50", OptimSpec(optimizer="lars", weight_decay=1e-6), 7),
}


def optimizers(bench: Bench) -> Iterator[Measurement]:
    for name, (architecture, spec, streams) in OPTIMIZERS.items():
        ours = network(bench, architecture)
        usual = copy.deepcopy(ours)
        for parameter in (*ours.parameters(), *usual.parameters()):
            parameter.grad = torch.randn_like(parameter)
        optimizer = optimizer_for(ours, spec)
        for group in optimizer.param_groups:
            group["lr"] = 1e-5
        other = usual_optimizer(usual, spec)
        works: dict[str, Callable[[], Work]] = {
            "ours": lambda step=optimizer.step: step,
            "reference: " + ("a loop that reads the norms" if spec.optimizer == "lars" else "torch's default"): (
                lambda step=other.step: step
            ),
            "a copy of as much": partial(copied, ours, streams),
        }
        yield from compare(f"optimizer: {name}", works, bench)


def usual_optimizer(network: nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    parameters, decay = list(network.parameters()), spec.weight_decay
    match spec.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, 1e-5, momentum=spec.momentum, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, 1e-5, weight_decay=decay)
        case "lars":
            return LARS(parameters, lr=1e-5, momentum=spec.momentum, weight_decay=decay, trust=spec.trust)


# --- changes of colour


def colours(bench: Bench) -> Iterator[Measurement]:
    """MoCo v2's changes of colour, of 256 crops of 224 pixels that lie on the device as bytes."""
    count, size = bench.size(256, 8), bench.size(224, 32)
    rng = torch.Generator(bench.device).manual_seed(0)
    crops = torch.randint(256, (count, 3, size, size), generator=rng, device=bench.device, dtype=torch.uint8)
    drawn = look(V2_VIEW, random_numbers(0, 0, ids=np.arange(count), view_index=0))
    works: dict[str, Callable[[], Work]] = {"ours": lambda: lambda: colour(crops, drawn)}
    if bench.device.type == "cuda":
        works["ours, compiled"] = lambda: lambda: colour(crops, drawn, compiled=True)
    works["torchvision.v2, image by image"] = partial(torchvision_colours, crops)
    if importlib.util.find_spec("kornia") is not None:
        works["kornia, float32"] = partial(kornia_colours, crops)
    yield from compare("changes of colour, MoCo v2", works, bench, count=count)


def torchvision_colours(crops: Tensor) -> Work:
    from torchvision.transforms import v2 as T

    change = T.Compose([
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=0.5),
    ])  # fmt: skip
    return lambda: torch.stack([change(one) for one in crops])


def kornia_colours(crops: Tensor) -> Work:
    import kornia.augmentation as K

    change = K.AugmentationSequential(
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5),
    )  # fmt: skip
    return lambda: change(crops.float() / 255)


# --- kNN


def neighbours(bench: Bench) -> Iterator[Measurement]:
    """The 200 nearest images of 50,000 queries in a bank as large as ImageNet."""
    bank, queries = bench.size(1_281_167, 1000), bench.size(8192, 64)
    rng = torch.Generator(bench.device).manual_seed(0)
    width = 512
    x, y = (torch.randn(rows, width, generator=rng, device=bench.device) for rows in (bank, queries))
    place = x.to("cpu"), y.to("cpu")  # the bank of a folder of images lies in the host's memory

    def plain() -> Tensor:
        rows = F.normalize(place[0].to(bench.device))
        return torch.cat([(F.normalize(some) @ rows.T).topk(min(200, bank)).indices for some in y.split(256)]).cpu()

    works: dict[str, Callable[[], Work]] = {
        "ours": lambda: lambda: nearest(*place, k=200, device=bench.device),
        "reference: similarities of 256 queries to the bank, top k": lambda: plain,
    }
    for tf32 in (False, True):
        allow_tf32(tf32)
        named = {f"{name}{', tf32' if tf32 else ''}": make for name, make in works.items()}
        yield from compare(f"kNN, {queries:,} queries, {bank:,} images", named, bench, count=queries, unit="queries")
    allow_tf32(False)


PARTS: Sequence[Part] = [
    Part("ceilings", ceilings),
    Part("loss-65536", partial(loss, 1 << 16, 1 << 11)),
    Part("loss-1048576", partial(loss, 1 << 20, 1 << 12)),
    Part("momentum-update", momentum_update),
    Part("optimizers", optimizers),
    Part("colours", colours),
    Part("knn", neighbours),
]
