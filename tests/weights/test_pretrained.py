"""The libraries' own pretrained weights, from caches planted beforehand: the network is off limits here."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.pretrained import check_connection


@pytest.fixture
def torchvision_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def timm_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub keeps the weights of timm's test_vit."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id.replace("/", "--")
    (tmp_path / f"models--{repository}" / "refs").mkdir(parents=True)
    (tmp_path / f"models--{repository}" / "refs" / "main").write_text("a" * 40)
    snapshot = tmp_path / f"models--{repository}" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def test_torchvisions_weights_are_read_with_their_images(torchvision_cache: Path) -> None:
    weights, theirs = models.ResNet18_Weights.DEFAULT, models.resnet18()
    torch.save(theirs.state_dict(), torchvision_cache / Path(weights.url).name)
    encoder, config = load_encoder("torchvision/resnet18")
    assert torch.equal(encoder.backbone.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    assert config.data.size == weights.transforms().crop_size[0]
    assert "its classifier (fc.weight, fc.bias) was left out" in config.note


def test_googlenets_inner_normalization_moves_to_the_preprocessing(torchvision_cache: Path) -> None:
    weights, theirs = models.GoogLeNet_Weights.DEFAULT, models.googlenet(init_weights=False)
    torch.save(theirs.state_dict(), torchvision_cache / Path(weights.url).name)
    theirs.transform_input = True  # as torchvision has it with these weights
    _, config = load_encoder("torchvision/googlenet")
    x, look = torch.rand(1, 3, 8, 8), weights.transforms()
    ours = (x - torch.tensor(config.data.mean).view(3, 1, 1)) / torch.tensor(config.data.std).view(3, 1, 1)
    other = (x - torch.tensor(look.mean).view(3, 1, 1)) / torch.tensor(look.std).view(3, 1, 1)
    torch.testing.assert_close(ours, theirs._transform_input(other))


def test_timms_weights_are_read_with_their_images(timm_cache: Path) -> None:
    theirs = timm.create_model("test_vit")
    save_file(theirs.state_dict(), timm_cache / "model.safetensors")
    encoder, config = load_encoder("timm/test_vit")
    assert torch.equal(encoder.backbone.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    assert (config.data.size, config.data.mean) == (160, (0.5, 0.5, 0.5))


def test_cached_weights_of_timm_are_read_without_asking_the_hub(
    timm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(timm.create_model("test_vit").state_dict(), timm_cache / "model.safetensors")

    def refuse(*_args: object, **_more: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", refuse)
    load_encoder("timm/test_vit")


def test_timms_weights_are_fitted_to_the_images_of_the_encoder(timm_cache: Path) -> None:
    theirs = timm.create_model("test_vit")
    save_file(theirs.state_dict(), timm_cache / "model.safetensors")
    encoder = build(EncoderSpec(name="timm/test_vit"), size=32)
    assert "tensors of timm/test_vit read" in initialize(encoder, "timm/test_vit")
    assert encoder.backbone.pos_embed.shape == (1, 5, 64)  # 2 x 2 patches and the class token, interpolated by timm
    assert torch.equal(encoder.backbone.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)


def test_a_file_of_timm_that_lacks_a_layer_is_refused(timm_cache: Path) -> None:
    state = {key: value for key, value in timm.create_model("test_vit").state_dict().items() if "blocks.0" not in key}
    save_file(state, timm_cache / "model.safetensors")
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_encoder("timm/test_vit")


@pytest.mark.usefixtures("torchvision_cache", "timm_cache")
@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_vit"])
def test_weights_out_of_reach_are_an_error_and_never_random(name: str) -> None:
    with pytest.raises(WeightsError, match=r"could not be loaded .*To work offline"):
        load_encoder(name)


class Unreachable:
    """As the hub's client is where there is no connection."""

    @staticmethod
    def head(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the host")


@pytest.mark.usefixtures("timm_cache")
def test_without_a_connection_timm_is_not_asked_and_the_error_says_how_to_work_offline(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: Unreachable)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("it retries for a minute"))
    said = r"could not be loaded \(no route to the host\).* To work offline, .* --init FILE --model timm/test_vit "
    with pytest.raises(WeightsError, match=said):
        load_encoder("timm/test_vit")


def test_weights_in_the_cache_need_no_connection(timm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("the file is in the cache"))
    save_file(timm.create_model("test_vit").state_dict(), timm_cache / "model.safetensors")
    check_connection("timm/test_vit", timm.get_pretrained_cfg("test_vit"))


def test_a_network_without_pretrained_weights_is_an_error() -> None:
    with pytest.raises(WeightsError, match="timm has no pretrained weights for vit_giant_patch14_224"):
        load_encoder("timm/vit_giant_patch14_224")


def test_building_by_name_downloads_nothing() -> None:
    for name in ("torchvision/resnet18", "timm/test_vit", "timm/resnet18.a1_in1k"):  # the network is off limits
        build(EncoderSpec(name=name))
