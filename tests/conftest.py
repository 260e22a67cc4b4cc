"""What several test files need: small pictures on the disk, and a run that takes a second."""

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
import type_checks  # noqa: F401  # before moco is imported: its functions are decorated then
from sample_pictures import make_pictures

from moco import recipes
from moco.data.augment import cpu
from moco.recipe import Recipe


@pytest.fixture(autouse=True, scope="session")
def _kernels() -> None:
    """Loaded before a test forks."""
    cpu.kernels(wait=True)


@pytest.fixture(autouse=True, scope="session")
def _autograd() -> None:
    """Begun before a test makes fake CUDA tensors: autograd would have a thread for their device, and forks fail."""
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run beside each other: one thread each."""
    torch.set_num_threads(1)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """jaxtyping's checks, which run in the tests only, fix N and disturb torch's compiler while it traces."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A flat folder of 40 pictures."""
    return make_pictures(tmp_path / "pictures", 40)


@pytest.fixture
def tiny() -> Recipe:
    """A recipe whose run on 40 pictures has 10 steps."""
    return recipes.named("demo").but(
        "tiny",
        {
            "encoder.width": 0.0625, "encoder.dim": 8, "data.size": 16, "data.eval_resize": 16, "method.size": 20,
            "optim.batch_size": 8, "optim.epochs": 2,
        },
    )  # fmt: skip
