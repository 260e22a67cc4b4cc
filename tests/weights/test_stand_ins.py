"""Files with objects beside the tensors: the tensors are read, and nothing else in the file is built or executed."""

import collections
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moco.weights.detectron2 import to_detectron2
from moco.weights.encoder_folder import load_encoder
from moco.weights.import_file import import_weights
from moco.weights.loaded_weights import WeightsError
from moco.weights.tensors import read_tensors
from tests.weights.other_tools_files import assert_gives, lightning, narrow, prefixed


def foreign_class(monkeypatch: pytest.MonkeyPatch, name: str, base: type = object) -> Any:
    """A class of a module that is not installed; it is there only while the file is written."""
    module, _, short = name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    made = type(short, (base,), {"__module__": module})
    setattr(sys.modules[module], short, made)
    return made


def written(folder: Path, settings: Any) -> Path:
    torch.save(lightning(prefixed("backbone.", narrow())) | {"hyper_parameters": settings}, folder / "file.ckpt")
    return folder / "file.ckpt"


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({"root": Path("/data/images")}, {"root": "/data/images"}),
        ({"x": collections.defaultdict(list, a=[1])}, {"x": {"a": [1]}}),
        ({"x": collections.defaultdict(int, {1: 2})}, {"x": {1: 2}}),
    ],
)
def test_a_path_is_read_as_text_and_a_defaultdict_as_a_dictionary(tmp_path: Path, settings: Any, read: Any) -> None:
    assert read_tensors(written(tmp_path, settings))["hyper_parameters"] == read


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3)), np.array(7.0), np.array([True, False]),
        np.arange(4, dtype=np.float16),
    ],
)  # fmt: skip
def test_a_numpy_array_is_read_as_a_tensor_of_equal_values(tmp_path: Path, array: np.ndarray) -> None:
    found = read_tensors(written(tmp_path, {"x": array}))["hyper_parameters"]["x"]
    assert isinstance(found, torch.Tensor)
    assert found.numpy().dtype == array.dtype
    assert np.array_equal(found.numpy(), array)


@pytest.mark.parametrize("array", [np.array([{}, 1], dtype=object), np.array(["a"]), np.arange(3, dtype=">f4")])
def test_a_numpy_array_of_anything_else_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(WeightsError, match="nothing in it was executed"):
        read_tensors(written(tmp_path, {"x": array}))


@pytest.mark.parametrize(
    "name", ["mmengine.logging.history_buffer.HistoryBuffer", "omegaconf.dictconfig.DictConfig", "yacs.config.Node"]
)
def test_an_object_of_a_known_program_is_left_out_and_named(tmp_path, monkeypatch, name: str) -> None:
    with monkeypatch.context() as patch:
        one = foreign_class(patch, name)()
        one.parent = one  # settings of omegaconf know their parents
        one.values = [1, 2]
        file = written(tmp_path, {"cfg": one})
    assert read_tensors(file)["hyper_parameters"] == {"cfg": f"{name} (not read)"}
    import_weights(file, out=tmp_path / "imported")
    assert_gives(load_encoder(tmp_path / "imported")[0], narrow())


def test_a_dictionary_of_a_known_program_is_read_as_a_plain_one(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        made = foreign_class(patch, "lightning_fabric.utilities.data.AttributeDict", dict)
        file = written(tmp_path, made(lr=0.1, more=made(a=1)))
    found = read_tensors(file)["hyper_parameters"]
    assert type(found) is dict
    assert found == {"lr": 0.1, "more": {"a": 1}}


class Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(6))
def test_weights_for_detectron2_as_the_authors_script_writes_them_are_read(tmp_path: Path, protocol: int) -> None:
    network, file = narrow(), tmp_path / "moco.pkl"
    state = {to_detectron2(name): tensor.numpy() for name, tensor in network.state_dict().items()}
    file.write_bytes(pickle.dumps({"model": state, "__author__": "MOCO", "matching_heuristics": True}, protocol))
    assert_gives(load_encoder(file)[0], network)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_execute_something_is_refused_by_name(tmp_path: Path, protocol: int) -> None:
    file, mark = tmp_path / "weights.pkl", tmp_path / "executed"
    file.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": Runs(mark)}}, protocol))
    with pytest.raises(WeightsError, match=r"would execute posix\.mkdir"):
        read_tensors(file)
    assert not mark.exists()


def test_a_pickle_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"model": {"a": np.zeros(100, dtype=np.float32)}})
    for length in range(len(whole)):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="nothing in it was executed"):
            read_tensors(tmp_path / "a.pkl")


def test_a_name_of_a_known_program_that_leads_elsewhere_executes_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    pickled = b"cmmengine.os\nmkdir\n(V" + str(mark).encode() + b"\ntR."
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}(X\x01\x00\x00\x00a" + pickled[:-1] + b"u.")
    assert read_tensors(tmp_path / "a.pkl") == {"a": "mmengine.os.mkdir (not read)"}
    assert not mark.exists()
