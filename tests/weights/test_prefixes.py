"""Names of tensors in files of other tools: wrappers, prefixes that the user chooses, and modules of the user's own."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from moco.weights.encoder_folder import WeightsError, load_encoder
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights
from tests.weights.other_tools_files import State, assert_gives, narrow, of_solo_moco, prefixed, written


@pytest.mark.parametrize(
    "around", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_wrappers_are_left_out_in_any_order_and_depth(tmp_path: Path, around: str) -> None:
    network = narrow()
    assert_gives(load_encoder(written(tmp_path, prefixed(around, network)))[0], network)
    inside = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in prefixed(around, network).items()}
    assert_gives(load_encoder(written(tmp_path, inside))[0], network)


def test_the_same_name_with_a_wrapper_and_without_is_refused(tmp_path: Path) -> None:
    state = narrow().state_dict()
    file = written(tmp_path, state | {"_orig_mod.conv1.weight": state["conv1.weight"]})
    with pytest.raises(WeightsError, match=r"the same names with and without '_orig_mod\.'"):
        load_encoder(file)


def strange() -> tuple[State, nn.Module]:
    network = narrow()
    return prefixed("tower_a.", network) | prefixed("tower_b.", narrow()) | prefixed("mix.", nn.Linear(2, 2)), network


def test_prefixes_are_listed_with_the_number_of_their_tensors(tmp_path: Path) -> None:
    file = written(tmp_path, strange()[0])
    listed = r"tower_a\. \(120 tensors\), tower_b\. \(120 tensors\), mix\. \(2 tensors\) .*--prefix PREFIX"
    with pytest.raises(WeightsError, match=listed):
        load_encoder(file)
    with pytest.raises(WeightsError, match=listed):
        load_encoder(file, architecture="resnet18")


@pytest.mark.parametrize("prefix", ["tower_a", "tower_a."])
def test_a_prefix_is_chosen_by_the_user(tmp_path: Path, prefix: str) -> None:
    state, network = strange()
    file = written(tmp_path, state)
    assert_gives(load_encoder(file, prefix=prefix)[0], network)
    import_weights(file, out=tmp_path / "imported", prefix=prefix)
    assert_gives(load_encoder(tmp_path / "imported")[0], network)
    assert torch.equal(
        read_weights(tmp_path / "imported", whole=True).backbone["conv1.weight"], state["tower_a.conv1.weight"]
    )


def test_the_trained_network_can_be_chosen_instead_of_its_average(tmp_path: Path) -> None:
    case = of_solo_moco()
    assert case.trained is not None
    assert_gives(load_encoder(written(tmp_path, case.content), prefix="backbone.")[0], case.trained)


def test_a_prefix_that_no_name_has_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    file = written(tmp_path, strange()[0])
    with pytest.raises(WeightsError, match=r"begins with 'tower_c\.'; there are: tower_a"):
        load_encoder(file, prefix="tower_c")


def test_a_module_of_the_user_with_a_part_named_backbone_is_used_as_a_whole(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.neck = narrow(), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.neck(self.backbone(x))

    source = Own().eval()
    file = written(tmp_path, {f"module.{key}": value for key, value in source.state_dict().items()})
    assert_gives(load_encoder(file, model=Own())[0], source)


def test_a_compiled_module_of_the_users_own_takes_its_weights_with_and_without_the_wrapper(tmp_path: Path) -> None:
    class Compiled(nn.Module):
        """As torch.compile wraps a module."""

        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = narrow()

        def forward(self, x: Tensor) -> Tensor:
            return self._orig_mod(x)

    source = narrow()
    for state in (source.state_dict(), prefixed("_orig_mod.", source)):
        compiled = Compiled()
        load_encoder(written(tmp_path, state), model=compiled)
        assert torch.equal(compiled._orig_mod.conv1.weight, source.conv1.weight)
