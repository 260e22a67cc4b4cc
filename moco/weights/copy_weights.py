"""Copy weights into a network: all of its tensors, with finite numbers, or an error."""

import torch
from torch import Tensor, nn

from moco.encoders.torchvision_timm import classifier
from moco.text import first_few
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from moco.weights.tensor_names import Tensors, bare_names, list_prefixes

COUNTER = "num_batches_tracked"  # of BN; files from before 2018 lack it, and nothing uses it
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def copy_weights(found: LoadedWeights, network: nn.Module, *, name: str) -> str:
    """Copy the weights into `network`, the backbone called `name`. Returns a sentence on what was copied.

    Raises:
        WeightsError: names are missing or left over, shapes differ, or values are not finite; the network is unchanged.
            A classifier in the file is not an error: it is left out, and the sentence names it.
    """
    own = network.state_dict()
    names = {bare: key for key, bare in bare_names(own, name).items()}  # a compiled module's have wrappers too
    wanted = {bare: own[key] for bare, key in names.items()}
    tensors = _tensors_for(wanted, found)
    dropped = _check_names_and_shapes(wanted, tensors, found, name=name, network=network)
    kept = {key: value for key, value in tensors.items() if key in wanted}
    _check_values({key: (value, wanted[key]) for key, value in kept.items()}, found.where)
    network.load_state_dict({names[key]: value for key, value in kept.items()}, strict=False)
    summary = f" ({found.summary})" if found.contents else ""
    without = f"; its classifier ({first_few(dropped, most=6)}) was left out" if dropped else ""
    return f"{len(kept)} tensors of {name} read from {found.where}{summary}{without}"


def check_values_of_parts(found: LoadedWeights) -> None:
    """Raise WeightsError if a value of head, f_k, predictor or queue is not finite."""
    keys = {"keys": found.queue["keys"]} if "keys" in found.queue else {}
    for part in (found.f_q, found.head, found.f_k, found.predictor, keys):
        floats = {key: value for key, value in part.items() if not key.endswith(COUNTER)}
        _check_values({key: (value, None) for key, value in floats.items() if value.dtype != torch.int64}, found.where)


def suggest_prefix(found: LoadedWeights) -> str:
    """A sentence that lists the prefixes in a file, so that the user can choose one; "" if there is no choice."""
    tensors = found.everything or found.backbone
    if found.prefix or found.f_q or not any(key.count(".") > 1 for key in tensors):
        return ""
    return (
        f". If one of the prefixes {list_prefixes(tensors)} is that of the encoder, choose it: moco import FILE "
        "--out DIR --prefix PREFIX (prefix= in Python)"
    )


def _tensors_for(wanted: Tensors, found: LoadedWeights) -> Tensors:
    """The backbone's tensors; or all tensors of the file, if the network needs some that the backbone lacks."""
    whole = not found.prefix and wanted.keys() <= found.everything.keys() and not wanted.keys() <= found.backbone.keys()
    return found.everything if whole else found.backbone


def _check_names_and_shapes(
    wanted: Tensors, tensors: Tensors, found: LoadedWeights, *, name: str, network: nn.Module
) -> list[str]:
    """Names of the classifier's tensors. Raises WeightsError for every other difference in names and shapes."""
    extra = [key for key in tensors if key not in wanted]
    ends = tuple(f"{module}." for module in classifier(name, network)) if extra else ()
    dropped = [key for key in extra if key.startswith(ends)]
    left_out = set(dropped)
    troubles = {
        "missing": [key for key in wanted if key not in tensors and not key.endswith(COUNTER)],
        "unexpected": [key for key in extra if key not in left_out],
        "of another shape": [
            f"{key} {list(tensors[key].shape)} instead of {list(wanted[key].shape)}"
            for key in wanted
            if key in tensors and tensors[key].shape != wanted[key].shape
        ],
    }
    if any(troubles.values()):
        lines = "; ".join(f"{what}: {first_few(keys, most=6)}" for what, keys in troubles.items() if keys)
        raise WeightsError(
            f"{found.where} holds other weights than those of {name} without its classifier ({lines})"
            + (suggest_prefix(found) if troubles["missing"] else "")
        )
    return dropped


def _check_values(pairs: dict[str, tuple[Tensor, Tensor | None]], where: str) -> None:
    """Raise WeightsError for values that are not finite floating-point numbers.

    Args:
        pairs: name -> a tensor of the file, and the network's own tensor, if known.
    """
    kinds = [
        f"{key} is {str(value.dtype).removeprefix('torch.')}"
        for key, (value, own) in pairs.items()
        if (own is None or own.is_floating_point()) and value.dtype not in FLOATS
    ]
    if kinds:
        raise WeightsError(f"expected floating-point weights, got others in {where}: {first_few(kinds, most=6)}")
    bad = [key for key, (value, own) in pairs.items() if not _is_finite(value, own)]
    negative = [key for key, (value, _) in pairs.items() if key.endswith("running_var") and bool((value < 0).any())]
    if negative:
        raise WeightsError(
            f"{where} has negative variances in {first_few(negative, most=6)}: it is damaged. Give another file"
        )
    if bad:
        raise WeightsError(
            f"{where} has NaN or infinite values in {len(bad)} of {len(pairs)} tensors ({first_few(bad, most=6)}). It "
            "is damaged, or from a run that diverged: give another file, or an earlier checkpoint"
        )


def _is_finite(value: Tensor, own: Tensor | None) -> bool:
    if value.dtype not in FLOATS:
        return not value.is_complex()
    value = value if own is None or not own.is_floating_point() else value.to(own.dtype)
    return bool(torch.isfinite(value).all())
