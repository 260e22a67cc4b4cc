from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
from torchvision import models

from moco.comparison import on_machine
from moco.comparison.on_machine import cheapest_on_machine, check_on_machine, weights_on_machine
from moco.recipe import RecipeError

VIT = timm.get_pretrained_cfg("test_vit").hf_hub_id  # timm/test_vit.TAG


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches as torchvision and Hugging Face lay them out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    files = [
        f"torch/hub/checkpoints/{Path(models.ResNet50_Weights.DEFAULT.url).name}",
        "torch/hub/checkpoints/resnet18-00000000.pth",  # of an older version of torchvision
        f"hub/models--{VIT.replace('/', '--')}/snapshots/0123/model.safetensors",
        "hub/models--timm--test_resnet.r160_in1k/refs/other",  # a folder without a file of weights
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    refs = tmp_path / f"hub/models--{VIT.replace('/', '--')}/refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    return tmp_path


def test_weights_in_the_caches_are_listed_and_those_of_older_versions_are_not(caches: Path):
    found = [name for name in weights_on_machine() if name != "timm/tf_efficientnet_lite0"]
    assert found == [VIT, "torchvision/resnet50"]


@pytest.mark.parametrize("name", ["torchvision/vgg16", "torchvision/resnet18", "timm/test_resnet", "nonsense"])
def test_a_baseline_that_would_be_downloaded_is_refused_with_those_that_are_there(caches: Path, name: str):
    with pytest.raises(RecipeError, match=rf"{name} is not on this machine.*timm/test_vit.*random, pixels"):
        check_on_machine(name)


@pytest.mark.parametrize("name", ["torchvision/resnet50", "timm/test_vit", VIT])
def test_a_cached_baseline_is_accepted(caches: Path, name: str):
    check_on_machine(name)


def test_the_quick_baseline_is_the_same_network_or_the_smallest_file(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(on_machine, "WEIGHT_PACKAGES", {})
    resnet = next((tmp_path / "torch").rglob("resnet50*"))
    vit = next((tmp_path / "hub").rglob("model.safetensors"))
    for small, large, found in ((resnet, vit, "torchvision/resnet50"), (vit, resnet, VIT)):
        small.write_bytes(b"1")
        large.write_bytes(b"22")
        assert cheapest_on_machine("resnet18") == found
    assert cheapest_on_machine("resnet50") == "torchvision/resnet50"
    assert cheapest_on_machine("torchvision/resnet50", other_than="torchvision/resnet50") == VIT


def test_a_path_is_accepted(caches: Path):
    check_on_machine(str(caches / "torch"))
