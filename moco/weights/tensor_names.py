"""Names of tensors as training programs write them: wrappers around a network, and prefixes for its parts."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from moco.text import first_few
from moco.weights.loaded_weights import WeightsError

Tensors = dict[str, Tensor]

DDP, COMPILED = "module.", "_orig_mod."
AROUND = (DDP, "_forward_module.")  # that every name begins with: of DDP and DataParallel, of Lightning Fabric


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def without_wrappers(tensors: Tensors, where: str) -> Tensors:
    """The same without "_orig_mod." in any place, and without "module." at the start, where all names have it.

    Raises:
        WeightsError: two names would become one.
    """
    bare = bare_names(tensors, where)
    return {bare[key]: value for key, value in tensors.items() if key in bare}


def bare_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Each name -> without its wrappers' prefixes. Raises WeightsError where two names would become one."""
    # torch.compile puts "_orig_mod." anywhere; no network has it as a name of its own
    bare = {name: name.replace(COMPILED, "") for name in names}
    if len(bare) > 1:  # torch's AveragedModel has this beside "module."
        bare.pop("n_averaged", None)
    while bare and (prefix := next((one for one in AROUND if all(x.startswith(one) for x in bare.values())), "")):
        bare = {name: x.removeprefix(prefix) for name, x in bare.items()}
    if len(set(bare.values())) < len(bare):
        raise WeightsError(f"{where} has the same names with {COMPILED!r} and without: expected one of both")
    return bare


def state_dicts(content: dict[Any, Any]) -> dict[str, Tensors]:
    """The state dicts in a file, by the key they stand under; "" is the file itself. What is no tensor is left out."""
    found = {key: state for key, value in content.items() if isinstance(key, str) and (state := _state_dict(value))}
    for key in ("state_dict", "model"):  # one around another
        if key not in found and isinstance(content.get(key), dict) and (inner := state_dicts(content[key])):
            return inner
    own = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return found or ({"": own} if own else {})


def _state_dict(value: Any) -> Tensors:
    """The tensors of a dictionary whose keys are names and whose values are tensors, or plain things between them."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return {}
    return {key: one for key, one in value.items() if isinstance(one, Tensor)}


def list_prefixes(tensors: Tensors) -> str:
    """The prefixes of the names with the number of tensors under each, two levels deep where the first is one alone."""
    counts = _counts(tensors, 1)
    return count_by_prefix(tensors, 2 if len(counts) == 1 else 1)


def count_by_prefix(tensors: Tensors, levels: int = 1) -> str:
    """The prefixes of so many levels, with the number of tensors under each."""
    counts = _counts(tensors, levels)
    return first_few([f"{prefix} ({count:,} tensor{'s' * (count > 1)})" for prefix, count in counts.items()], most=6)


def _counts(tensors: Tensors, levels: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        if len(parts) > levels:
            prefix = ".".join(parts[:levels]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
