"""Stand-ins for argparse namespaces and NumPy numbers, which training scripts save beside the tensors.

`torch.load(weights_only=True)` refuses both. Inside `allow_stand_ins()` it builds the classes defined here in their
place, without argparse and NumPy: a namespace becomes a dictionary, a NumPy number a Python number.
"""

import struct
from contextlib import AbstractContextManager
from pickle import UnpicklingError
from typing import Any

import torch

NUMBERS = {  # NumPy's code of a type -> struct's
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


class Namespace(dict[str, Any]):
    """In place of argparse.Namespace: its attributes by name. `plain_content` converts it to a dict."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnpicklingError("a namespace must be a dictionary of attributes")
        self.update(state)


class NumpyType:
    """In place of numpy.dtype: its type code and byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def numpy_scalar(kind: Any, raw: Any) -> Any:
    """In place of numpy's `scalar`: the number that `raw` encodes."""
    letter = NUMBERS.get(kind.code) if isinstance(kind, NumpyType) and isinstance(kind.code, str) else None
    if letter is None or not isinstance(raw, bytes) or len(raw) != struct.calcsize(kind.order + letter):
        raise UnpicklingError("a NumPy scalar that is not a number")
    return struct.unpack(kind.order + letter, raw)[0]


def allow_stand_ins() -> AbstractContextManager[None]:
    """A context in which `torch.load(weights_only=True)` reads namespaces and NumPy numbers as the stand-ins above."""
    return torch.serialization.safe_globals(
        [
            (Namespace, "argparse.Namespace"),
            (NumpyType, "numpy.dtype"),
            (numpy_scalar, "numpy.core.multiarray.scalar"),
            (numpy_scalar, "numpy._core.multiarray.scalar"),
        ]
    )
