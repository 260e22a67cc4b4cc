"""Two ranks on one device by gloo, and one by NCCL, compute what one process does."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.gpu import one_rank
from tests.gpu.helpers import PYTHONPATH, needs_gpu
from tests.ranks.mechanisms import MECHANISMS, as_a_set, trained


def on_ranks(world: int, backend: str, device: torch.device, folder: Path) -> list[dict[str, dict]]:
    """What each mechanism came to on each rank."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    ranks = [
        subprocess.Popen(
            [sys.executable, one_rank.__file__, str(rank), str(world), str(folder / "store"), backend, str(device),
             str(folder / f"{rank}.pt")], env=environment, stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]  # fmt: skip
    for rank in ranks:
        _, errors = rank.communicate(timeout=150)
        assert rank.returncode == 0, errors.decode()[-2000:]
    return [torch.load(folder / f"{rank}.pt", map_location="cpu") for rank in range(world)]


def check(found: list[dict[str, dict]], device: torch.device) -> None:
    for make in MECHANISMS:
        expected = {name: x.cpu() for name, x in trained(make, 2, device=str(device)).items()}
        for result in found:
            got = result[make.__name__]
            if make.__name__ == "symmetric_queue":
                expected, got = as_a_set(expected), as_a_set(got)
            for name, x in expected.items():
                text = f"{make.__name__}, {name}"
                torch.testing.assert_close(
                    got[name], x, rtol=1e-8, atol=1e-10, msg=lambda of, text=text: f"{text}: {of}"
                )


def test_two_ranks_on_one_device_compute_what_one_process_does(device, tmp_path):
    check(on_ranks(2, "gloo", device, tmp_path), device)


@needs_gpu
def test_one_rank_by_nccl_computes_what_a_process_without_it_does(tmp_path):
    check(on_ranks(1, "cpu:gloo,cuda:nccl", torch.device("cuda"), tmp_path), torch.device("cuda"))
