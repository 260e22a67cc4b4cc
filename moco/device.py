"""The default device, and the default number of workers."""

import torch

from moco.recipe import RecipeError


def pick_device(name: str | torch.device) -> torch.device:
    """`auto` is CUDA if there is one, else MPS, else the CPU. Raises RecipeError for a device that is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(
            f"--device expects an available device (auto, cpu, cuda, cuda:N or mps), got '{name}': {reason}"
        ) from None
    return device


def workers_for(workers: int | None) -> int:
    """The number of threads that read images; None: one per core that torch uses, at most 8. Raises RecipeError."""
    if workers is None:
        return max(1, min(8, torch.get_num_threads()))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise RecipeError(
            f"workers expects 0 or more threads that read images, or None for one per core (at most 8), got {workers!r}"
        )
    return workers
