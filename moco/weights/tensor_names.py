"""Names of tensors as training programs write them: remove wrappers' prefixes, list the prefixes of parts."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from moco.text import first_few, plural
from moco.weights.loaded_weights import WeightsError

Tensors = dict[str, Tensor]

DDP, COMPILED = "module.", "_orig_mod."
AROUND = (DDP, "_forward_module.")  # prefixes of all names: by DDP and DataParallel, by Lightning Fabric


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def without_wrappers(tensors: Tensors, where: str) -> Tensors:
    """The same without "_orig_mod." anywhere, and without "module." at the start, if all names have it.

    Raises:
        WeightsError: two names would become one.
    """
    bare = bare_names(tensors, where)
    return {bare[key]: value for key, value in tensors.items() if key in bare}


def bare_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Each name -> the name without wrappers' prefixes. Raises WeightsError if two names would become one."""
    # torch.compile puts "_orig_mod." anywhere; no network has it as a name of its own
    bare = {name: name.replace(COMPILED, "") for name in names}
    if len(bare) > 1:  # torch's AveragedModel has this beside "module."
        bare.pop("n_averaged", None)
    while bare and (prefix := next((one for one in AROUND if all(x.startswith(one) for x in bare.values())), "")):
        bare = {name: x.removeprefix(prefix) for name, x in bare.items()}
    if len(set(bare.values())) < len(bare):
        raise WeightsError(f"{where} has the same names with and without {COMPILED!r}: expected only one of the two")
    return bare


def state_dicts(content: dict[Any, Any]) -> dict[str, Tensors]:
    """The state dicts in a file, by key; "" is the file itself. Values that are not tensors are left out."""
    if isinstance(inner := content.get("classy_state_dict"), dict):  # VISSL
        for key in ("base_model", "model"):
            inner = inner[key] if isinstance(inner.get(key), dict) else inner
        return state_dicts(inner)
    found = {key: state for key, value in content.items() if isinstance(key, str) and (state := _state_dict(value))}
    for key in ("state_dict", "model"):  # one may contain the other
        if key not in found and isinstance(content.get(key), dict) and (inner := state_dicts(content[key])):
            return inner
    own = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return found or ({"": own} if own else {})


def _state_dict(value: Any) -> Tensors:
    """The tensors of a dictionary whose keys are names and whose values are tensors, or plain values among them."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return {}
    return {key: one for key, one in value.items() if isinstance(one, Tensor)}


def list_prefixes(tensors: Tensors) -> str:
    """The prefixes of the names with the number of tensors under each; of two levels, if there is only one prefix."""
    counts = _counts(tensors, 1)
    return count_by_prefix(tensors, 2 if len(counts) == 1 else 1)


def count_by_prefix(tensors: Tensors, levels: int = 1) -> str:
    """The prefixes of `levels` levels, with the number of tensors under each."""
    counts = _counts(tensors, levels)
    return first_few([f"{prefix} ({plural(count, 'tensor')})" for prefix, count in counts.items()], most=6)


def _counts(tensors: Tensors, levels: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        if len(parts) > levels:
            prefix = ".".join(parts[:levels]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
