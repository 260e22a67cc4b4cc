"""Files whose content is not what it seems: each is refused by name and within seconds, and nothing is left of it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.import_file import import_weights
from moco.weights.tensors import read_tensors
from tests.weights import reference_files


def inside_of_itself() -> dict[str, Any]:
    content: dict[str, Any] = {"conv1.weight": torch.zeros(3)}
    return content | {"more": [content.setdefault("again", content)]}


def doubling() -> dict[str, Any]:
    """2^60 ways lead to one list."""
    node: list[Any] = []
    for _ in range(60):
        node = [node, node]
    return {"conv1.weight": torch.zeros(3), "more": node}


def deep() -> dict[str, Any]:
    node: list[Any] = []
    for _ in range(150):
        node = [node]
    return {"conv1.weight": torch.zeros(3), "more": node}


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)


CONTENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "inside of itself": (inside_of_itself, "inside itself"),
    "doubling": (doubling, "more than 500,000 entries"),
    "deep": (deep, "more than 100 levels deep"),
    "meta": (lambda: {"conv1.weight": torch.zeros(3, device="meta")}, "conv1.weight is a meta tensor"),
    "sparse": (lambda: {"conv1.weight": torch.eye(3).to_sparse()}, "layout sparse_coo"),
    "sparse rows": (lambda: {"conv1.weight": torch.eye(3).to_sparse_csr()}, "layout sparse_csr"),
    "quantized": (lambda: {"conv1.weight": quantized()}, "a quantized tensor"),
    "nested": (lambda: {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "a nested tensor"),
    "2 TB": (lambda: {"state_dict": {"conv1.weight": torch.zeros(1).expand(2**39)}}, "state_dict.conv1.weight is a"),
    "many times": (lambda: {f"{i}.weight": torch.zeros(2**20) for i in range(1)}
                   | {f"x{i}": torch.zeros(1).expand(2**20) for i in range(90)}, "far more than the file holds"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(CONTENTS))
def test_content_other_than_plain_tensors_is_refused_by_name(tmp_path: Path, name: str) -> None:
    made, said = CONTENTS[name]
    torch.save(made(), tmp_path / "in.pth")
    with pytest.raises(WeightsError, match=rf"in\.pth cannot be read as weights: .*{said}"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out", architecture="resnet18")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_tensor_under_two_names_and_a_small_expanded_one_are_no_trouble(tmp_path: Path) -> None:
    tied = torch.randn(1000)
    torch.save({"a": tied, "b": tied, "c": torch.zeros(1).expand(100)}, tmp_path / "in.pth")
    assert torch.equal(read_tensors(tmp_path / "in.pth")["b"], tied)


def resnet_with(change: Callable[[torch.Tensor], torch.Tensor], key: str = "conv1.weight") -> dict[str, torch.Tensor]:
    state = dict(reference_files.trained(reference_files.Narrow(10)).state_dict())
    return state | {key: change(state[key])}


VALUES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "NaN": (
        lambda x: torch.full_like(x, float("nan")),
        r"NaN or infinite values in 1 of 12\d tensors \(conv1\.weight\)",
    ),
    "one NaN": (lambda x: x.index_fill(0, torch.tensor([3]), float("nan")), "NaN or infinite values"),
    "infinite": (lambda x: x / 0, "NaN or infinite values"),
    "too large": (lambda x: torch.full_like(x, 1e300, dtype=torch.float64), "NaN or infinite values"),
    "bool": (lambda x: x > 0, r"expected floating-point weights, got others in .*: conv1\.weight is bool"),
    "int8": (lambda x: x.to(torch.int8), r"conv1\.weight is int8"),
    "complex": (lambda x: x.to(torch.complex64), r"conv1\.weight is complex64"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), r"conv1\.weight is float8_e4m3fn"),
}


@pytest.mark.parametrize("name", list(VALUES))
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path: Path, name: str) -> None:
    change, said = VALUES[name]
    torch.save(resnet_with(change), tmp_path / "in.pth")
    with pytest.raises(WeightsError, match=said):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    with pytest.raises(WeightsError, match=said):
        load_encoder(tmp_path / "in.pth", model=reference_files.Narrow(10))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["encoder_k.conv1.weight", "encoder_q.fc.2.weight", "queue"])
def test_nan_in_what_goes_with_the_encoder_is_refused(tmp_path: Path, part: str) -> None:
    content = reference_files.v2()
    content["state_dict"][f"module.{part}"].fill_(float("nan"))
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match="NaN or infinite values"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    encoder = load_encoder(tmp_path / "in.pth")[0]  # of f_q alone it is not
    with pytest.raises(WeightsError, match="NaN or infinite values"):
        initialize(encoder, tmp_path / "in.pth")


def test_half_and_double_are_numbers(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save(
            {k: v.to(dtype) if v.is_floating_point() else v for k, v in resnet_with(lambda x: x).items()},
            tmp_path / "in.pth",
        )
        assert load_encoder(tmp_path / "in.pth")[0].backbone.conv1.weight.dtype == torch.float32


def test_a_loss_that_is_nan_beside_the_tensors_comes_back(tmp_path: Path) -> None:
    torch.save({"state_dict": resnet_with(lambda x: x), "best_loss": float("nan")}, tmp_path / "in.pth")
    import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    assert isinstance(load_encoder(tmp_path / "out")[0].backbone, nn.Module)


def test_a_file_of_very_many_stored_tensors_is_refused_within_seconds(tmp_path: Path) -> None:
    torch.save({f"extra.{i}": torch.zeros(1) for i in range(20_100)}, tmp_path / "in.pth")
    start = time.process_time()
    with pytest.raises(WeightsError, match="stored tensors, and no network has more than 20,000"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    assert time.process_time() - start < 5


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    state = resnet_with(lambda x: x)
    state["layer1.0.bn1.running_var"][2] = -0.1
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match=r"negative variances in layer1\.0\.bn1\.running_var"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")


def test_tensors_without_dimensions_are_refused_in_words(tmp_path: Path) -> None:
    torch.save({name: tensor.sum() for name, tensor in resnet_with(lambda x: x).items()}, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match="does not show which network"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")


@pytest.mark.parametrize("more", ["beside", "inside"])
def test_files_with_very_many_names_are_refused_or_read_within_seconds(tmp_path: Path, more: str) -> None:
    one = torch.zeros(1)
    extra: dict[str, Any] = {f"extra.{i}": one if more == "inside" else i for i in range(100_000)}
    state = resnet_with(lambda x: x)
    torch.save(state | extra if more == "inside" else {"state_dict": state, "log": extra}, tmp_path / "in.pth")
    start = time.process_time()
    if more == "beside":
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    else:
        with pytest.raises(WeightsError, match=r"unexpected: extra\.0, .* and 99,994 more"):
            import_weights(tmp_path / "in.pth", out=tmp_path / "out", architecture="resnet18")
    assert time.process_time() - start < 20
