"""Files that are no weights: what they are is said by their first bytes, and never that they should be executed."""

import gzip
import io
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from moco.weights.encoder_folder import WeightsError, load_encoder
from tests.weights import reference_files


def zipped(names: list[str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 10)
    return made.getvalue()


def tarred(name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def saved(content: object) -> bytes:
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def script() -> bytes:
    made = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), made)
    return made.getvalue()


def array() -> bytes:
    made = io.BytesIO()
    np.save(made, np.zeros(3))
    return made.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 98\n"
KINDS: dict[str, tuple[bytes, str]] = {
    "web page": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", r"a web page \(HTML\).*download it again"),
    "web page after a BOM": (b"\xef\xbb\xbf\n  <HTML>", "a web page"),
    "LFS pointer": (LFS, "a Git LFS pointer.*run git lfs pull"),
    "nothing": (b"", "an empty file"),
    "ONNX": (b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:\x92\x01" + bytes(200), "an ONNX file"),
    "zip": (zipped(["README.txt", "weights.pth"]), r"a zip archive \(with README.txt, weights.pth\): unpack it"),
    "cut off": (saved({"a": torch.zeros(10000)})[:20000], "cut off or damaged.*copy or download it again"),
    "packed": (gzip.compress(saved({})), r"a compressed file \(gzip\): unpack it"),
    "tar": (tarred("weights.pth"), "a tar archive: unpack it"),
    "NumPy": (array(), r"a NumPy array \(\.npy\)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras writes"),
    "text": (b'{"message": "not found"}', "a text file that starts with '{\"message\""),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "an image"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", list(KINDS))
def test_the_error_names_the_kind_of_file(tmp_path: Path, name: str, ending: str) -> None:
    content, said = KINDS[name]
    (tmp_path / f"some.{ending}").write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"cannot be read as weights; nothing in it was executed\. It is .*{said}"
    ) as caught:
        load_encoder(tmp_path / f"some.{ending}")
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_named_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "some.pt").write_bytes(script())
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(WeightsError, match=r"a TorchScript program: save model\.state_dict\(\) instead") as caught,
    ):
        load_encoder(tmp_path / "some.pt")
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", [b"\x80\x02garbage", bytes(range(256)), b"\x00" * 300, b"\x80\x04."])
def test_no_advice_to_execute_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights") as caught:
        load_encoder(tmp_path / "some.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["some.pth", "some.bin", "some.ckpt"])
def test_safetensors_are_read_under_any_name(tmp_path: Path, name: str) -> None:
    state = reference_files.trained(reference_files.Narrow(10)).state_dict()
    save_file(state, tmp_path / name)
    assert torch.equal(load_encoder(tmp_path / name)[0].backbone.conv1.weight, state["conv1.weight"])


def test_a_file_of_torch_save_that_is_called_safetensors_says_so(tmp_path: Path) -> None:
    torch.save(reference_files.Narrow(10).state_dict(), tmp_path / "some.safetensors")
    with pytest.raises(WeightsError, match=r"a file of torch\.save.*rename it to \.pth"):
        load_encoder(tmp_path / "some.safetensors")
