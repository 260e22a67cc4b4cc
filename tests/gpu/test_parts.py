"""Optimizers, changes of colour, kNN: a device computes what the CPU does."""

import numpy as np
import pytest
import torch
from torch import nn

from moco.data.augment import colour as colours
from moco.data.augment.colour import colour
from moco.data.augment.random_parameters import look, random_numbers
from moco.evaluate.knn import nearest
from moco.recipe import OptimSpec
from moco.recipes.moco_v1 import V1_VIEW
from moco.recipes.moco_v2 import V2_VIEW
from moco.recipes.moco_v3 import moco_v3_vit_small
from moco.train.optim import optimizer_for
from tests.gpu.helpers import CPU, needs_gpu

VIEWS = {"v1": V1_VIEW, "v2": V2_VIEW} | {
    f"v3, {name}": view for name, view in zip(("first", "second"), moco_v3_vit_small().data.views, strict=True)
}
N = 96


def crops() -> torch.Tensor:
    """Bytes in all combinations of smooth and noisy, dark and bright."""
    rng = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(N, 3, 5, 5, generator=rng) * 255, size=48, mode="bilinear")
    noise = torch.randint(256, (N, 3, 48, 48), generator=rng)
    return torch.where(torch.arange(N)[:, None, None, None] % 3 == 0, noise, smooth).to(torch.uint8)


@pytest.mark.parametrize("view", VIEWS)
def test_colours_are_those_of_the_cpu_bit_for_bit(view, device):
    drawn = look(VIEWS[view], random_numbers(3, 1, ids=np.arange(N), view_index=0))
    assert torch.equal(colour(crops().to(device), drawn).cpu(), colour(crops(), drawn))


@needs_gpu
def test_compiled_colours_are_those_of_the_cpu_bit_for_bit(without_shape_checks, record_property):
    colours._compiled.cache_clear()
    different = 0
    for seed, view in enumerate(VIEWS.values()):
        drawn = look(view, random_numbers(seed, 1, ids=np.arange(N), view_index=0))
        found = colour(crops().to("cuda"), drawn, compiled=True).cpu()
        different += int((found != colour(crops(), drawn)).sum())
    record_property("bytes that differ", f"{different:,} of {len(VIEWS) * crops().numel():,}")
    assert different == 0


SPECS = {
    "sgd": OptimSpec(optimizer="sgd", weight_decay=1e-4), "adamw": OptimSpec(optimizer="adamw", weight_decay=0.1),
    "lars": OptimSpec(optimizer="lars", weight_decay=1e-6),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_five_updates_in_float64_are_those_of_the_cpu(name, device):
    found: list[torch.Tensor] = []
    for place in (device, CPU):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double().to(place)
        optimizer = optimizer_for(network, SPECS[name])
        optimizer.param_groups[0]["lr"] = 0.1
        for step in range(5):
            rng = torch.Generator().manual_seed(step)
            for x in network.parameters():
                x.grad = torch.randn(x.shape, generator=rng, dtype=torch.float64).to(place)
            optimizer.step()
        found.append(torch.cat([x.detach().flatten().cpu() for x in network.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_the_nearest_images_are_those_of_the_cpu(device):
    rng = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40_000, 64, generator=rng), torch.randn(700, 64, generator=rng)
    there, here = (nearest(bank, queries, k=20, device=place) for place in (device, CPU))
    torch.testing.assert_close(there.similarities, here.similarities, rtol=1e-5, atol=1e-5)
    assert (there.indices == here.indices).float().mean() > 0.999
