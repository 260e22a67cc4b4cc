"""Fake CUDA tensors for machines without a GPU, and recipes that are small enough for them."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from packaging.version import Version
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from moco import recipes
from moco.method import Contrast

N = 8

SMALL = {
    "encoder.name": "resnet10", "encoder.width": 0.125, "encoder.dim": 16, "data.size": 32, "optim.batch_size": N,
    "method.bn_groups": 2,
}  # fmt: skip

VIT = {"encoder.name": "vit_micro", "encoder.dim": 16, "encoder.hidden": 16, "data.size": 32, "optim.batch_size": N}

RECIPES = {
    "moco_v2": recipes.named("moco_v2_r50").but("small", SMALL | {"method.size": 24}),
    "one_pass": recipes.named("moco_v2_r50").but("small", SMALL | {"method.size": 24, "compute.one_pass": True}),
    "symmetric": recipes.named("moco_v2_r50").but("small", SMALL | {"method.size": 24, "method.symmetric": True}),
    "moco_v3_lars": recipes.named("moco_v3_r50_100").but("small", SMALL | {"method.bn": "split"}),
    "moco_v3_adamw": recipes.named("moco_v3_vit_small").but("small", VIT),
    "end_to_end": recipes.named("end_to_end_256").but("small", SMALL),
    "memory_bank": recipes.named("memory_bank_infonce").but("small", SMALL | {"method.size": 24}),
    "nce": recipes.named("memory_bank_nce").but("small", SMALL | {"method.size": 24}),
}


def has_fake_gpu() -> bool:
    """Whether this torch can pretend to have a GPU: older releases ask the driver when a fake tensor is copied."""
    if Version(torch.__version__) >= Version("2.14"):
        return True
    with FakeTensorMode():
        try:
            torch.zeros(1, device="cuda").copy_(torch.ones(1, device="cuda"))
        except RuntimeError as error:
            if "driver" not in str(error):
                raise
            return False
    return True


needs_fake_gpu = pytest.mark.skipif(
    not has_fake_gpu(), reason=f"torch {torch.__version__} has fake GPUs with real ones"
)


@contextlib.contextmanager
def fake(contrast: Contrast, device: str) -> Iterator[None]:
    """While open, tensors are fake; those of `contrast` have been put on the device."""
    with FakeTensorMode() as mode:
        for module in contrast.modules():
            for name, x in module.named_parameters(recurse=False):
                moved = torch.empty_like(mode.from_tensor(x).detach(), device=device)  # `to` would ask for a real GPU
                module.register_parameter(name, nn.Parameter(moved, requires_grad=x.requires_grad))
            for name, x in module.named_buffers(recurse=False):
                module.register_buffer(name, torch.empty_like(mode.from_tensor(x), device=device))
        yield
