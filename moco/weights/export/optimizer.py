"""Convert the optimizer state of a run to that of the reference scripts: the same numbers in their order."""

from typing import Any

import torch
from torch import Tensor

from moco.encoders import build
from moco.weights.loaded_weights import LoadedWeights
from moco.weights.official.layout import encoder_q

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def reference_optimizer(found: LoadedWeights) -> dict[str, Any] | None:
    """The optimizer's state dict for a checkpoint that the reference scripts resume from, or None if there is none.

    Their optimizer gets all parameters (f_q, f_k, predictor), and has state for those with a gradient
    (main_moco.py:291-296; moco-v3's :224-230). Ours gets only those with a gradient.

    Args:
        found: a checkpoint of a run; other weights have no optimizer state.
    """
    if "recipe" not in found.content or len((ours := found.content["state"]["optimizer"])["param_groups"]) != 1:
        return None
    predictor = [f"predictor.{name}" for name in _parameters(found.predictor)]
    trained = [name for name in _parameters(encoder_q(found)) if name not in _frozen(found)] + predictor
    theirs = [*_parameters(encoder_q(found)), *(f"f_k.{name}" for name in _parameters(found.f_k)), *predictor]
    group = dict(ours["param_groups"][0])
    if len(group["params"]) != len(trained):
        return None
    place = {name: index for index, name in enumerate(theirs)}
    state = {place[trained[index]]: _parameter_state(values, group) for index, values in ours["state"].items()}
    group["params"] = list(range(len(theirs)))
    if "trust" in group:  # LARS
        group["trust_coefficient"] = group.pop("trust")
    for how in ("fused", "foreach"):  # implementation choices: left to their script
        if how in group:
            group[how] = None
    return {"state": state, "param_groups": [group]}


def _parameter_state(values: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """The state of one parameter. Their LARS calls the momentum "mu"."""
    renamed = {"momentum_buffer": "mu"} if "trust" in group else {}
    return {
        renamed.get(name, name): value.contiguous() if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


def _parameters(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name in tensors if not name.endswith(BUFFERS)]


def _frozen(found: LoadedWeights) -> set[str]:
    """Names of parameters that take no gradient: fixed positions, a frozen patch projection."""
    assert found.spec is not None
    if found.spec.name == "custom":
        return set()
    with torch.device("meta"):
        encoder = build(found.spec, size=None if found.data is None else found.data.size)
    return {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
