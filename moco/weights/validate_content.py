"""Check that the content of a weights file is plain data: no cycles, limited depth, tensors with their own values."""

from typing import Any

import torch
from torch import Tensor

from moco.weights.loaded_weights import WeightsError
from moco.weights.pickle_stand_ins import Namespace, NotRead, NumpyArray, NumpyType

DEPTH = 100  # nested containers; an optimizer's state has 4
ENTRIES = 500_000  # in all containers, counted once for each path to them
SLACK = 64 * 2**20  # [bytes] that tensors may take beyond the file's size


def plain_content(content: dict[Any, Any], where: str, *, file_size: int) -> dict[Any, Any]:
    """`content` with dictionaries in place of namespaces; the tensors are the same objects.

    Args:
        file_size: [bytes] A file cannot hold tensors that take much more memory than this. Some more is allowed for
            tensors that are in the file once and under several names.

    Raises:
        WeightsError: a container contains itself, or a tensor is meta, sparse, quantized, nested, or expanded to far
            more than the file holds.
    """
    walk = _Walk(where, 4 * file_size + SLACK)
    plain = walk.plain(content, ())
    assert isinstance(plain, dict)
    return plain


class _Walk:
    def __init__(self, where: str, most: int) -> None:
        self.where, self.left, self.open = where, most, set[int]()
        self.entries = ENTRIES

    def plain(self, node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, NumpyArray) and node.tensor is not None:
            node = node.tensor
        if isinstance(node, Tensor):
            self._check(node, path)
            return node
        if isinstance(node, NumpyArray | NumpyType | NotRead | type) or callable(node):
            return f"{getattr(node, 'of', '') or 'an object'} (not read)"
        if not isinstance(node, dict | list | tuple):
            return node
        if id(node) in self.open or len(path) > DEPTH:
            what = "inside itself" if id(node) in self.open else f"more than {DEPTH} levels deep"
            raise self._refusal(path, f"a {type(node).__name__} that is {what}")
        self.open.add(id(node))
        try:
            return self._container(node, path)
        finally:
            self.open.remove(id(node))

    def _container(self, node: Any, path: tuple[str, ...]) -> Any:
        """`node` itself where nothing in it has changed."""
        self.entries -= len(node)
        if self.entries < 0:
            raise self._refusal(path, f"one of more than {ENTRIES:,} entries")
        if isinstance(node, dict) and any(isinstance(key, NumpyArray | NumpyType | NotRead) for key in node):
            raise self._refusal(path, "a dictionary whose keys are objects")
        named = node.items() if isinstance(node, dict) else enumerate(node)
        changed = {}
        for key, value in named:
            plain = self.plain(value, (*path, str(key)))
            if plain is not value:
                changed[key] = plain
        if isinstance(node, Namespace):
            return dict(node) | changed
        if not changed:
            return node
        if isinstance(node, tuple):
            return tuple(changed.get(i, value) for i, value in enumerate(node))
        for key, value in changed.items():
            node[key] = value
        return node

    def _check(self, tensor: Tensor, path: tuple[str, ...]) -> None:
        if trouble := _not_plain(tensor):
            raise self._refusal(path, trouble)
        size = tensor.numel() * tensor.element_size()
        self.left -= size
        if self.left < 0:
            raise self._refusal(
                path, f"a tensor of {size:,} bytes: the tensors would take far more than the file holds"
            )

    def _refusal(self, path: tuple[str, ...], what: str) -> WeightsError:
        name = ".".join(path[:6]) + ("..." if len(path) > 6 else "")
        return WeightsError(
            f"{self.where} cannot be read as weights: expected plain tensors by name, and {name[:200]} is {what}"
        )


def _not_plain(tensor: Tensor) -> str | None:
    """Why the tensor cannot be copied into a network as it is; None: it can."""
    if tensor.is_meta:
        return "a meta tensor, which has a shape and no values"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor: save the network before quantization"
    if tensor.layout != torch.strided:
        return (
            f"a tensor of layout {str(tensor.layout).removeprefix('torch.')}: convert it by .to_dense() before saving"
        )
    return None
