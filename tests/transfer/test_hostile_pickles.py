"""Pickles in the place of the body's distances that would run something: nothing runs."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from moco.transfer.body_surface import read_body_surface
from moco.transfer.readers.entries import AnnotationError
from moco.weights.encoder_folder import load_encoder
from moco.weights.loaded_weights import WeightsError
from tests.transfer.sample_surface import write_surface


class Call:
    """Pickled, it is a call of os.system."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def hostile(command: str) -> dict[str, bytes]:
    """20 pickles that run `command` when they are unpickled."""
    text, size = command.encode(), bytes([len(command)])
    array = np.zeros(3, dtype=np.float32)
    found = {f"protocol {number}": pickle.dumps(Call(command), protocol=number) for number in range(6)}
    found |= {f"beside an array, {number}": pickle.dumps({"Pdist_matrix": array, "x": Call(command)}, protocol=number)
              for number in range(6)}  # fmt: skip
    return found | {
        "global and reduce": b"cos\nsystem\n(S'" + text + b"'\ntR.",
        "inst": b"(S'" + text + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + text + b"'\no.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + size + text + b"\x85R.",
        "name of posix": b"cposix\nsystem\n(S'" + text + b"'\ntR.",
        "a memo": b"cos\nsystem\nq\x00(S'" + text + b"'\nq\x01tq\x02R.",
        "eval": b"cbuiltins\neval\n(S'__import__(\"os\").system(\"" + text + b"\")'\ntR.",
        "in a list": b"(lcos\nsystem\n(S'" + text + b"'\ntRa.",
    }  # fmt: skip


def test_no_code_of_a_pickle_runs(tmp_path: Path):
    write_surface(tmp_path)
    ran = tmp_path / "ran"
    content = hostile(f"touch {ran}")
    assert len(content) == 20
    pickle.loads(content["global and reduce"])
    assert ran.exists()  # they are what they seem
    ran.unlink()
    for name, data in content.items():
        (tmp_path / "Pdist_matrix.pkl").write_bytes(data)
        with pytest.raises(AnnotationError, match=r"Pdist_matrix\.pkl"):
            read_body_surface(tmp_path)
        file = tmp_path / "model_final.pkl"  # as Detectron2 names its weights
        file.write_bytes(data)
        with pytest.raises(WeightsError):
            load_encoder(file)
        assert not ran.exists(), name
