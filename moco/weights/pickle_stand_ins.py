"""Stand-ins for objects that training programs save beside the tensors, so that the tensors can be read.

`torch.load(weights_only=True)` refuses such a file. Inside `allow_stand_ins()` it builds what is defined here in their
place. Nothing is imported or executed: a namespace becomes a dictionary, a NumPy number or array a Python number or a
tensor, a path its text, and the settings of known programs a note that they were not read.
"""

import pickle
import struct
from contextlib import AbstractContextManager, suppress
from pathlib import Path
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


class NumpyArray:
    """In place of numpy.ndarray; `tensor` has its values once it is read."""

    tensor: torch.Tensor | None = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, kind, fortran, raw = state
            dtype = TENSORS[kind.code]
            size = struct.calcsize(kind.order + NUMBERS[kind.code])
            values = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            if kind.order != "<" or size * values.numel() != len(raw):
                raise UnpicklingError("a NumPy array of another byte order")
            self.tensor = values.reshape(shape[::-1]).permute(*reversed(range(len(shape)))) if fortran else values
            self.tensor = self.tensor.reshape(shape).contiguous()
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UnpicklingError("a NumPy array that does not hold plain numbers") from error


def array_from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> NumpyArray:
    """In place of the function that makes an array in protocol 5 of pickle."""
    array = NumpyArray()
    array.__setstate__((1, shape, kind, order == "F", bytes(raw) if isinstance(raw, bytes | bytearray) else None))
    return array


class NotRead:
    """In place of an object of another program. Nothing of it is kept but the name of its class, `of`."""

    of = ""

    def __new__(cls, *_: Any) -> "NotRead":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def new_dict(*_: Any) -> dict[Any, Any]:
    """In place of a subclass of dict: a plain one, which then gets the same entries."""
    return {}


class NewDict:
    """As `new_dict`, for files that make the object by its class."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def no_bytes(*_: Any) -> bytes:
    """In place of `bytes()`, which older protocols call for an empty value."""
    return b""


def encoded(text: Any, *_: Any) -> bytes:
    """In place of the function by which older protocols store bytes."""
    return text.encode("latin1") if isinstance(text, str) else b""


def path_text(*parts: Any) -> str:
    """In place of a path: its text."""
    return str(Path(*(part for part in parts if isinstance(part, str))))


def stand_in_for(name: str) -> Any:
    """What is built in place of the class or function called `name`; None: a file with it is refused."""
    if name in BY_NAME:
        return BY_NAME[name]
    if name.partition(".")[0] in PROGRAMS:
        return NewDict if name.rpartition(".")[2] in DICTS else type("NotRead", (NotRead,), {"of": name})
    return None


TENSORS = {
    "b1": torch.bool, "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8,
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64,
}  # fmt: skip
# Programs whose objects in a checkpoint are settings, logs and versions. The names are only compared.
PROGRAMS = ("omegaconf", "mmengine", "mmcv", "vissl", "classy_vision", "pytorch_lightning", "lightning",
            "lightning_fabric", "hydra", "yacs", "addict", "typing")  # fmt: skip
DICTS = ("AttributeDict", "AttrDict")  # subclasses of dict without further state
BY_NAME: dict[str, Any] = {
    "argparse.Namespace": Namespace,
    "numpy.dtype": NumpyType,
    "numpy.ndarray": NumpyArray,
    **{f"numpy.{core}.multiarray.scalar": numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": array_from_buffer for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": NumpyArray for core in ("core", "_core")},
    **{f"{module}.{kind}": path_text for module in ("pathlib", "pathlib._local")
       for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")},
    "collections.defaultdict": new_dict,
    "builtins.bytes": no_bytes,
    "__builtin__.bytes": no_bytes,
    "_codecs.encode": encoded,
    **{f"{module}.{kind}": type("NotRead", (NotRead,), {"of": kind}) for module in ("builtins", "__builtin__")
       for kind in ("list", "dict", "int", "float", "str")},  # what a defaultdict makes
}  # fmt: skip


def allow_stand_ins(path: Path) -> AbstractContextManager[None]:
    """A context in which `torch.load(path, weights_only=True)` builds stand-ins for the objects in the file."""
    names = set(BY_NAME)
    with suppress(Exception):  # a file that torch.load cannot read either, or one of the older format
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    found = {name: stand_in_for(name) for name in sorted(names)}
    return torch.serialization.safe_globals([(one, name) for name, one in found.items() if one is not None])


class _Reader(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own unpickler, whose only classes and functions are the stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        found = stand_in_for(f"{module}.{name}")
        if found is None:
            raise UnpicklingError(f"GLOBAL {module}.{name} is not allowed")
        return found


def read_plain_pickle(path: Path) -> Any:
    """The content of a file of pickle.dump, as Detectron2 and MoCo's script for it write. Nothing in it is executed."""
    with path.open("rb") as file:
        return _Reader(file, encoding="latin1").load()
