"""The passes of the encoders can be recorded as CUDA graphs: each step asks for the same, at the same addresses.

What a graph plays back is what was recorded: operations, shapes, numbers that came from the host, addresses of weights
and buffers. There is no GPU here to record on, so all of that is noted and compared between two steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from moco import recipes
from moco.method import Contrast, MomentumEncoder
from moco.recipe import Recipe
from moco.schedule import Constant
from moco.train.build import contrast_for, in_format
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.optim import optimizer_for
from tests.train.fake_gpu import RECIPES, N


class Recorder(TorchDispatchMode):
    """Notes every operation with all of its arguments but the addresses of what is made meanwhile."""

    def __init__(self, contrast: Contrast):
        super().__init__()
        self.names = {x.data_ptr(): name for name, x in [*contrast.named_parameters(), *contrast.named_buffers()]}
        self.noted: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.noted.append((str(func), tree_map(self._note, [args, kwargs or {}])))
        return func(*args, **(kwargs or {}))

    def _note(self, x: object) -> object:
        if isinstance(x, Tensor):
            return str(x.dtype), tuple(x.shape), x.stride(), self.names.get(x.data_ptr())
        return x


@contextmanager
def noting(contrast: Contrast, recorder: Recorder) -> Iterator[None]:
    """While open, the recorder sees what the encoders do, and all that goes backward."""
    networks = {id(one): one for one in (contrast.encoder, contrast.key_encoder) if one is not None}
    plain = {number: network.forward for number, network in networks.items()}

    def noted(forward):
        def run(x: Tensor) -> Tensor:
            with recorder:
                return forward(x)

        return run

    for number, network in networks.items():
        network.forward = noted(plain[number])
    try:
        with mock.patch.object(Tensor, "backward", noted(Tensor.backward)):
            yield
    finally:
        for network in networks.values():
            del network.forward


def steps_of(recipe: Recipe, count: int, contrast: Contrast) -> list[list[tuple[str, Any]]]:
    """What the encoders did in each step, and where everything was that stays."""
    state = TrainState(contrast, optimizer_for(contrast, recipe.optim), Clock(10, 100))
    rng, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        recorder = Recorder(contrast)
        views = [torch.randn(N, 3, 32, 32, generator=rng).to(memory_format=torch.channels_last) for _ in range(2)]
        with noting(contrast, recorder):
            train(
                contrast, state, [(views, torch.arange(N))], lr=recipe.optim.lr, m=Constant(0.9), seed=0,
                after_step=lambda *_: None,
            )  # fmt: skip
        found.append([*recorder.noted, ("addresses", sorted(recorder.names.items()))])
    return found


def contrast_of(recipe: Recipe) -> Contrast:
    return contrast_for(recipe, torch.device("cpu"), num_images=50, model=None, init=None, say=print)


@pytest.mark.parametrize("case", RECIPES)
def test_every_step_runs_the_same_operations_of_the_encoders(case: str):
    recipe = RECIPES[case]
    _, second, third = steps_of(recipe, 3, contrast_of(recipe))
    assert {"aten.native_batch_norm_backward.default", "aten.native_layer_norm_backward.default"} & {
        name for name, _ in second
    }  # what goes backward is among it
    assert second == third


class Counting(nn.Module):
    """A fault: a layer with a number of the host that changes from step to step."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.count = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.inner(x * (1 + 1 / self.count))


def test_a_number_that_changes_between_steps_is_detected():
    recipe = RECIPES["moco_v2"]
    contrast = contrast_of(recipe)
    contrast.encoder = Counting(contrast.encoder)
    contrast.key_encoder = MomentumEncoder(contrast.encoder)
    _, second, third = steps_of(recipe, 3, contrast)
    assert second != third


def test_weights_that_change_their_address_are_detected(monkeypatch: pytest.MonkeyPatch):
    def follow(self: MomentumEncoder, encoder: nn.Module, m: float) -> None:
        for mine, theirs in zip(self.module.parameters(), encoder.parameters(), strict=True):
            mine.data = torch.lerp(mine, theirs.detach(), 1 - m)

    monkeypatch.setattr(MomentumEncoder, "follow", follow)
    recipe = RECIPES["moco_v2"]
    _, second, third = steps_of(recipe, 3, contrast_of(recipe))
    assert second != third


def test_torch_gets_the_start_of_each_step(monkeypatch: pytest.MonkeyPatch):
    """Otherwise the embeddings of one BN group would be written over by the next group's, before they are looked at."""
    said: list[str] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: said.append("step"))
    batches = [([torch.zeros(2, 3, 4, 4)] * 2, torch.arange(2))] * 3
    graphs = recipes.named("demo").but(None, {"compute.compile": True, "compute.cuda_graphs": True})
    for batch in in_format(batches, graphs):
        said.append(str(len(batch)))
    assert said == ["step", "2"] * 3
    list(in_format(batches, recipes.named("demo")))
    assert said == ["step", "2"] * 3


def test_both_encoders_are_compiled_for_it(monkeypatch: pytest.MonkeyPatch):
    modes: list[str | None] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *, mode=None: modes.append(mode))
    for graphs, mode in ((True, "reduce-overhead"), (False, None)):
        contrast_of(RECIPES["moco_v2"].but(None, {"compute.compile": True, "compute.cuda_graphs": graphs}))
        assert modes == [mode] * 2
        modes.clear()
