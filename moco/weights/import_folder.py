"""A folder made by `moco import`: an encoder folder, and everything else that the file contained, bit for bit.

encoder/       as `save_encoder` writes it
rest.pt        {"format": 1, "content": the file as it was, with None for each tensor that encoder/ has,
               "in_encoder": [[path of names in content, name in encoder/], ...], "prefix": chosen by the user}
contents.json  a description of the file for people
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from moco.weights.loaded_weights import WeightsError
from moco.weights.tensors import read_tensors, same_tensors

REST, CONTENTS = "rest.pt", "contents.json"


def split_content(
    content: dict[str, Any], backbone: dict[str, Tensor], saved: dict[str, Tensor], *, prefix: str = ""
) -> dict[str, Any]:
    """The content of rest.pt: `content` without the tensors of `backbone` that `saved` has too.

    Args:
        backbone: tensors in `content`, under their names in an encoder folder.
        saved: the tensors in the encoder folder. A tensor that differs there, say in data type, stays in rest.pt.
        prefix: the prefix that the user has chosen, if the file has several networks.
    """
    names = {id(tensor): name for name, tensor in backbone.items() if same_tensors(saved.get(name), tensor)}
    taken: list[list[Any]] = []

    def without(node: Any, path: list[Any]) -> Any:
        if isinstance(node, dict):
            return {key: without(value, [*path, key]) for key, value in node.items()}
        if id(node) not in names:
            return node
        taken.append([path, names[id(node)]])
        return None

    return {"format": 1, "content": without(content, []), "in_encoder": taken, "prefix": prefix}


def read_chosen_prefix(folder: Path) -> str:
    """The prefix that the user gave when `folder` was imported; "" for none."""
    prefix = read_tensors(folder / REST).get("prefix", "")  # older folders have none
    return prefix if isinstance(prefix, str) else ""


def join_content(folder: Path) -> dict[str, Any]:
    """The content of the file that `folder` was imported from.

    Raises:
        WeightsError: rest.pt or the encoder cannot be read, or they do not belong together.
    """
    rest, encoder = read_tensors(folder / REST), read_tensors(folder / "encoder" / "model.safetensors")
    try:
        content = rest["content"]
        for path, name in rest["in_encoder"]:
            node = content
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = encoder[name]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        where = f"{folder / REST} does not belong to {folder / 'encoder'}"
        raise WeightsError(f"{where} ({error}): import the file again") from None
    return content
