"""Every test here runs on the CPU, and under `pytest -m gpu` on a GPU."""

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.helpers import GPU


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """No TF32, and the same bits in each run."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = allowed
