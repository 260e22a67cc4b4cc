"""Load the newest checkpoint that a run can resume from. If one does not fit, the one before it is tried."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from moco.distributed import on_main, share
from moco.recipe import RecipeError, diff
from moco.recipe_base import RecipeBase
from moco.text import message_of
from moco.train import checkpoint
from moco.train.checkpoint import TrainState
from moco.train.run_folder import RunError
from moco.weights.read_checkpoint import CheckpointError, find_missing, find_other_run, step_in

WRONG = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)  # of load_state_dict


def load_newest(
    folder: Path, state: TrainState, recipe: RecipeBase, *, say: Callable[[str], None], run_id: str | None = None
) -> dict[str, Any] | None:
    """Load the newest checkpoint in `folder` that fits `state`, on every rank.

    Args:
        run_id: checkpoints of runs with other ids are not used; None: the id is not known.

    Returns:
        Its content; None if there are no checkpoints.

    Raises:
        CheckpointError: there are checkpoints, but none can be used. RunError: the newest is of another recipe.
    """
    payload: dict[str, Any] = {}
    content = b""
    if on_main():

        def accepts(path: Path) -> str | None:
            payload.clear()
            try:
                payload.update(checkpoint.read_checkpoint(path))
            except CheckpointError as error:
                return f"unreadable ({error})"
            return _load(payload, state, recipe, path, run_id)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = checkpoint.newest_intact(folder, accepts=accepts)
        for warning in caught:
            say(f"caution: {warning.message}")
        content = b"" if path is None else path.read_bytes()
    content = share(content)
    if content and not on_main():
        payload = checkpoint.read_checkpoint(io.BytesIO(content))
        state.load_state_dict(payload["state"])
    return payload if content else None


def _load(payload: dict[str, Any], state: TrainState, recipe: RecipeBase, path: Path, run_id: str | None) -> str | None:
    """Load the checkpoint, or return why the run cannot resume from it. Raises RunError for another recipe."""
    if missing := find_missing(payload, step_in(path.name)):
        return missing
    _check_recipe(payload["recipe"], recipe, path)
    if reason := find_other_run(payload, run_id) or _find_wrong_numbers(payload, state):
        return reason
    keys = [set(group) for group in _groups(state)]
    state.window.load_state_dict({"gathered": {}})  # checkpoints of older versions have no window
    try:
        state.load_state_dict(payload["state"])
    except WRONG as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else " ".join(message_of(error).split())
        return f"not a checkpoint that fits the networks and the optimizer of this run ({reason[:300]})"
    if any(not before <= set(group) for before, group in zip(keys, _groups(state), strict=True)):
        return "incomplete (settings of the optimizer are missing)"
    return _find_wrong_optimizer(state)


def _groups(state: TrainState) -> list[dict[str, Any]]:
    return state.optimizer.param_groups if isinstance(state.optimizer, torch.optim.Optimizer) else []


def _check_recipe(text: str, recipe: RecipeBase, path: Path) -> None:
    try:
        changes = diff(type(recipe).from_json(text), recipe)
    except RecipeError as error:
        raise RunError(f"{path} has no recipe that this version can read: {error}. Move the file away") from None
    if changes:
        listed = "\n  ".join(changes)
        raise RunError(
            f"the newest checkpoint in {path.parent} is of a run with another recipe than recipe.json. These settings "
            f"differ:\n  {listed}\nPut this run's own checkpoints or recipe.json back from a copy, or name another "
            "--out"
        )


def _find_wrong_numbers(payload: dict[str, Any], state: TrainState) -> str | None:
    """What is wrong with the step, the metrics window or the number of ranks in the checkpoint, or None."""
    clock, step, total = payload["state"]["clock"], payload["state"]["clock"]["step"], state.clock.total_steps
    if step > total:
        return f"of step {step}, and this run ends at step {total}"
    skipped = clock.get("skipped", 0)
    if type(skipped) is not int or not 0 <= skipped <= step:
        return f"damaged (it says that {skipped!r} of {step} steps were skipped)"
    ranks = payload.get("ranks", 1)
    if type(ranks) is not int or ranks < 1 or not isinstance(payload.get("statistics", {}), dict):
        return f"damaged (it says that the run had {ranks!r} ranks)"
    window = payload["state"].get("window", {"gathered": {}})
    gathered = window.get("gathered") if isinstance(window, dict) else None
    values = list(gathered.values()) if isinstance(gathered, dict) else [None]
    if not all(isinstance(one, list) and one and all(type(x) is float for x in one) for one in values):
        return "damaged (the metrics since the last record are not lists of numbers)"
    return None


def _find_wrong_optimizer(state: TrainState) -> str | None:
    """What is wrong with the optimizer's state after loading, or None. SGD without momentum has no state."""
    if not isinstance(state.optimizer, torch.optim.Optimizer):
        return None
    groups, known = state.optimizer.param_groups, state.optimizer.state
    parameters = {parameter for group in groups for parameter in group["params"]}
    needed = parameters and any(group.get("momentum", 1) for group in groups)
    if needed and not known and state.clock.step > state.clock.skipped:
        return "incomplete (the optimizer's state of the parameters is missing)"
    names = {frozenset(values) if isinstance(values, dict) else None for values in known.values()}
    if len(names) > 1 or None in names or not known.keys() <= parameters:
        return "incomplete (parts of the optimizer's state are missing, or of other parameters)"
    for parameter, values in known.items():
        if any(isinstance(x, torch.Tensor) and x.ndim and x.shape != parameter.shape for x in values.values()):
            return "not a checkpoint that fits the optimizer of this run (its state has other shapes)"
    return None
