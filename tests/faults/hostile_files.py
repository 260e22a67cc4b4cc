"""Hostile files: pickles that would execute something, and containers with false sizes."""

import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.weights.reference_files import Narrow


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable, *arguments: Any, state: Any = None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def named(line: str, arguments: str) -> bytes:
    """A pickle that calls `module name` with a string, by protocol 0: the function need not be there."""
    module, name = line.split()
    return f"c{module}\n{name}\n(V{arguments}\ntR.".encode()


def calls(canary: Path) -> dict[str, bytes]:
    """Pickles that would create the file `canary`, each in another way."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    doors = {
        "os system": touch, "posix system": touch, "subprocess getoutput": touch,
        "subprocess call": f"touch${{IFS}}{canary}", "builtins eval": code, "builtins exec": code,
        "timeit timeit": code, "code.InteractiveInterpreter runcode": code,
        "cProfile run": code, "pdb run": code, "doctest debug_src": code, "trace.Trace run": code, "pip main": touch,
        "platform popen": touch, "commands getoutput": touch, "torch.utils.collect_env run": touch,
        "torch.hub load": str(canary.parent), "torch.jit load": str(canary), "torch.serialization load": str(canary),
        "torch.testing._internal.common_utils shell": touch, "numpy.testing._private.utils runstring": code,
        "pathlib Path.touch": str(canary), "runpy run_path": str(canary), "ctypes CDLL": str(canary),
    }  # fmt: skip
    found = {door: named(door, said) for door, said in doors.items()}
    inner = pickle.dumps(Call(open, str(canary), "w"))
    found |= {
        "reduce": inner,
        "in a state dict": pickle.dumps({"state_dict": {"weight": Call(open, str(canary), "w")}}),
        "as a key": pickle.dumps({"format": 1, Call(open, str(canary), "w"): 1}),
        "in the state of an OrderedDict": pickle.dumps(Call(OrderedDict, state={"a": Call(open, str(canary), "w")})),
        "a pickle in a pickle": pickle.dumps(Call(pickle.loads, inner)),
        "a storage with a pickle in it": pickle.dumps(Call(torch.storage._load_from_bytes, inner)),
        "a tensor rebuilt from a call": pickle.dumps(
            Call(torch._utils._rebuild_tensor_v2, Call(open, str(canary), "w"), 0, (1,), (1,), False, OrderedDict())
        ),
        "a parameter rebuilt from a call": pickle.dumps(
            Call(torch._utils._rebuild_parameter, Call(open, str(canary), "w"), False, OrderedDict())
        ),
        "the opcode INST": f"(V{canary}\nVw\nibuiltins\nopen\n.".encode(),
        "the opcode OBJ": f"(cbuiltins\nopen\nV{canary}\nVw\no.".encode(),
    }
    return found


def odd_pickles() -> dict[str, bytes]:
    """Pickles with false sizes, wrong types or great depth."""
    rebuild = torch._utils._rebuild_tensor_v2
    storage = torch.zeros(4)._typed_storage()
    return {
        "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "a long that is long": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01" * 64 + b".",
        "a string longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
        "cut off": pickle.dumps({"state_dict": {"a": [1] * 1000}})[:-500],
        "not a dictionary": pickle.dumps([1, 2, 3]),
        "a storage that is not there": pickle.dumps(
            {"a": Call(rebuild, "storage", 0, (2,), (1,), False, OrderedDict())}
        ),
        "larger than its storage": _zip_of({"a": Call(rebuild, storage, 0, (1 << 40,), (1,), False, OrderedDict())}),
        "a negative size": _zip_of({"a": Call(rebuild, storage, 0, (-4,), (1,), False, OrderedDict())}),
        "a place before its storage": _zip_of({"a": Call(rebuild, storage, -8, (4,), (1,), False, OrderedDict())}),
    }


def containers(inner: bytes) -> dict[str, bytes]:
    """The pickle `inner` in every file format that torch has used."""
    return {
        "bare": inner,
        "zip": _zip({"archive/data.pkl": inner, "archive/version": b"3\n"}),
        "TorchScript": _zip({
            "archive/data.pkl": inner, "archive/constants.pkl": inner, "archive/version": b"3\n",
            "archive/code/__torch__.py": b"import os\n",
        }),
        "torch.package": _zip({
            "archive/.data/extern_modules": b"os\n", "archive/.data/version": b"6\n", "archive/data.pkl": inner,
        }),
        "old form": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + inner,
        "tar": _tar({"sys_info": pickle.dumps({}, 2), "pickle": inner, "storages": inner, "tensors": inner}),
    }  # fmt: skip


def odd_zips() -> dict[str, bytes]:
    """Archives that are no checkpoint."""
    good = _zip_of({"state_dict": {"a": torch.zeros(1000)}})
    names = zipfile.ZipFile(io.BytesIO(good)).namelist()
    contents = {name: zipfile.ZipFile(io.BytesIO(good)).read(name) for name in names}
    data = next(name for name in names if name.endswith("data/0"))
    return {
        "zip without a pickle": _zip({"archive/version": b"3\n"}),
        "zip with names outside": _zip({"../../etc/data.pkl": b"x", "/archive/data.pkl": b"x"}),
        "zip whose storage is missing": _zip({name: x for name, x in contents.items() if name != data}),
        "zip whose storage is short": _zip(contents | {data: contents[data][:100]}),
    }


def hostile_contents() -> dict[str, Any]:
    """By name: contents that `torch.load(weights_only=True)` reads, but that are not weights. Based on a ResNet-18."""
    good = dict(Narrow(10).state_dict())
    one = good["conv1.weight"]
    found = {name: good | {"conv1.weight": tensor} for name, tensor in _hostile_tensors(one).items()}
    itself: dict[str, Any] = {"state_dict": good}
    doubled: list[Any] = []
    for _ in range(64):
        doubled = [doubled, doubled]
    return found | {
        "inside of itself": itself | {"again": [itself.setdefault("itself", itself)]},
        "2^64 ways to one list": {"state_dict": good, "log": doubled},
        "a queue of one dimension": {
            f"encoder_q.{key}": x for key, x in good.items()
        } | {"queue": torch.zeros(5), "queue_ptr": torch.zeros(1, dtype=torch.int64)},
        "100,000 names more": good | {f"layer1.{i}.weight": torch.zeros(1) for i in range(100_000)},
    }  # fmt: skip


def _hostile_tensors(one: torch.Tensor) -> dict[str, torch.Tensor]:
    """Replacements for the tensor `one`."""
    parts = list(one.unbind())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "meta": one.to("meta"), "sparse": one.to_sparse(), "sparse rows": one.flatten(1).to_sparse_csr(),
            "quantized": torch.quantize_per_tensor(one, 0.1, 0, torch.quint8),
            "nested": torch.nested.nested_tensor(parts), "2 TB": torch.zeros(1).expand(1 << 39),
            "NaN": one * float("nan"), "infinite": one / 0, "bool": one > 0, "int8": one.to(torch.int8),
            "complex": one.to(torch.complex64), "float8": one.to(torch.float8_e4m3fn),
        }  # fmt: skip


def _zip(contents: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return made.getvalue()


def _zip_of(content: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def _tar(contents: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in contents.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return made.getvalue()


def hostile_pickles(canary: Path) -> dict[str, bytes]:
    """By name. One call in every container, the other calls in the present ones, bare and zip in turn."""
    found = {f"reduce, {form}": content for form, content in containers(calls(canary)["reduce"]).items()}
    for i, (door, inner) in enumerate(calls(canary).items()):
        form = ("bare", "zip")[i % 2]
        found[f"{door}, {form}"] = containers(inner)[form]
    return found | odd_pickles() | odd_zips()


def hostile_safetensors() -> dict[str, bytes]:
    """By name: each violates another rule of the format."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    size = {"F32": 4}["F32"]

    def made(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    return {
        "a header of 2^63 bytes": made({"a": one}, length=2**63),
        "a header longer than the file": made({"a": one}, length=10_000),
        "a header of no bytes": made(b"", length=0),
        "a header that is not JSON": made(b"{'a': 1}"),
        "a header that is not UTF-8": made(b'{"\xff": 1}'),
        "a header that is a list": made([one]),
        "a deep header": made(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        "a name twice": made(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
            bytes(8),
        ),
        "overlapping tensors": made({"a": one, "b": one | {"data_offsets": [4, 12]}}, bytes(12)),
        "a hole between tensors": made({"a": one, "b": one | {"data_offsets": [16, 24]}}, bytes(24)),
        "a tensor beyond the end": made({"a": one | {"data_offsets": [2**40, 2**40 + 2 * size]}}),
        "an end before the beginning": made({"a": one | {"data_offsets": [8, 0]}}),
        "a shape of 2^62 x 4": made({"a": one | {"shape": [2**62, 4]}}),
        "a shape that is not the size": made({"a": one | {"shape": [3]}}),
        "a type that there is not": made({"a": one | {"dtype": "PICKLE"}}),
    }
