"""Nothing in a step waits for the device: it runs on fake tensors, which have a device and shapes, and no numbers.

What would make the host wait for a GPU (`item`, `bool`, `tolist`, a mask as an index, a copy to the host) has no answer
on them and raises; so does an operation between two devices. Autograd's engine cannot be told that it has a GPU: its
part runs on a fake CPU.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from moco.method import Queue
from moco.recipe import Recipe
from moco.train.build import contrast_for
from moco.train.optim import optimizer_for
from tests.train.fake_gpu import RECIPES, N, fake, needs_fake_gpu


class NoBlockingCopies(TorchDispatchMode):
    """A copy from the host to a GPU must not wait for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        waits = func is torch.ops.aten._to_copy.default and not kwargs.get("non_blocking")
        if waits and (args[0].device.type, torch.device(kwargs.get("device") or "cpu").type) == ("cpu", "cuda"):
            raise RuntimeError("a copy to the device that waits for it: non_blocking=True is missing")
        return func(*args, **kwargs)


def two_steps(recipe: Recipe, device: str, backward: Callable[[nn.Module, Tensor], None]) -> None:
    """Algorithm 1."""
    contrast = contrast_for(recipe, torch.device("cpu"), num_images=50, model=None, init=None, say=print)
    with fake(contrast, device), NoBlockingCopies():
        optimizer = optimizer_for(contrast, recipe.optim)
        if isinstance(optimizer, torch.optim.SGD) and device != "cpu":  # torch has no fake kernel of its fused SGD
            optimizer.param_groups[0] |= {"fused": False, "foreach": True}
        for count in range(2):
            rng = torch.Generator().manual_seed(count)
            views = [torch.randn(N, 3, 32, 32, device=device).to(memory_format=torch.channels_last) for _ in range(2)]
            parts = contrast.parts(views, torch.arange(N, device=device), rng)
            answers = []
            for part in parts:
                answers.append(contrast(part, rng))
                backward(contrast, answers[-1].loss)
            optimizer.step()
            contrast.follow(0.99)
            keys, key_ids = torch.cat([answer.k for answer in answers]), torch.cat([answer.ids for answer in answers])
            contrast.dictionary.update(keys, key_ids, count)
            assert keys.device.type == device


def on_cpu(contrast: nn.Module, loss: Tensor) -> None:
    loss.backward()
    assert all(x.grad is not None for x in contrast.parameters() if x.requires_grad)


def pretended(contrast: nn.Module, loss: Tensor) -> None:
    for x in contrast.parameters():
        x.grad = torch.zeros_like(x) if x.requires_grad else None


@pytest.mark.parametrize("case", RECIPES)
@pytest.mark.parametrize(
    ("device", "backward"), [("cpu", on_cpu), pytest.param("cuda", pretended, marks=needs_fake_gpu)]
)
def test_a_step_does_not_wait_for_the_device_and_mixes_no_devices(case, device, backward):
    two_steps(RECIPES[case], device, backward)


@needs_fake_gpu
@pytest.mark.parametrize("fault", ["host", "device", "copy"])
def test_a_queue_that_waits_for_the_device_or_is_on_another_is_detected(fault, monkeypatch):
    def update(self: Queue, k: Tensor, ids: Tensor, step: int) -> None:
        if fault == "host":
            self.keys[int(self.oldest)] = k[0]
        elif fault == "copy":
            self.keys[: len(k)] = k[torch.randperm(len(k)).to(k.device)]
        else:
            self.keys.add_(torch.ones(len(self.keys), 1))

    monkeypatch.setattr(Queue, "update", update)
    with pytest.raises(Exception, match=r"local_scalar_dense|at least two devices|non_blocking"):
        two_steps(RECIPES["moco_v2"], "cuda", pretended)
