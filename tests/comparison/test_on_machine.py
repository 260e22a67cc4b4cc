from pathlib import Path

import pytest

from moco.comparison.on_machine import check_on_machine, weights_on_machine
from moco.recipe import RecipeError


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches as torchvision and Hugging Face lay them out."""
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    files = [
        "torch/hub/checkpoints/resnet50-11ad3fa6.pth",
        "hf/hub/models--timm--resnet18.a1_in1k/snapshots/0123/model.safetensors",
        "hf/hub/models--timm--vit_base.x/refs/main",  # a folder without a file of weights
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def test_weights_in_the_caches_are_listed(caches: Path):
    found = [name for name in weights_on_machine() if name != "timm/tf_efficientnet_lite0"]
    assert found == ["timm/resnet18", "torchvision/resnet50"]


def test_a_baseline_that_would_be_downloaded_is_refused_with_those_that_are_there(caches: Path):
    with pytest.raises(RecipeError, match=r"torchvision/vgg16 is not on this machine.*timm/resnet18.*random, pixels"):
        check_on_machine("torchvision/vgg16")


def test_a_cached_baseline_and_a_path_are_accepted(caches: Path):
    check_on_machine("torchvision/resnet50")
    check_on_machine(str(caches / "torch"))
