import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from moco.encoders import build
from moco.recipe import EncoderSpec, RecipeError
from moco.weights.encoder_folder import Config, WeightsError, initialize, load_encoder, save_encoder
from tests.weights.small_encoders import RECIPE, TINY, trained, write_checkpoint


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "encoder", trained(), recipe=RECIPE, facts={"steps": 12, "knn": 71.5})
    return tmp_path / "encoder"


def test_an_encoder_folder_comes_back_with_the_same_features(folder: Path) -> None:
    encoder, config = load_encoder(folder)
    x = torch.randn(2, 3, 32, 32)
    assert not encoder.training
    assert torch.equal(encoder(x), trained().features(x))
    assert (config.encoder, config.num_features, config.recipe) == (TINY, 32, "tiny")
    assert config.facts == {"steps": 12, "knn": 71.5}
    assert (config.data.size, config.data.eval_resize, config.data.mean) == (32, 36, (0.1, 0.2, 0.3))


def test_the_file_holds_the_backbone_alone_by_the_librarys_names(folder: Path) -> None:
    assert load_file(folder / "model.safetensors").keys() == trained().backbone.state_dict().keys()


def test_an_encoder_in_channels_last_is_saved_as_it_is(tmp_path: Path) -> None:
    encoder = trained().to(memory_format=torch.channels_last)
    save_encoder(tmp_path, encoder, recipe=RECIPE, facts={})
    assert same(load_file(tmp_path / "model.safetensors"), trained().backbone.state_dict())


def test_saving_twice_leaves_the_newer_and_nothing_half_written(folder: Path) -> None:
    save_encoder(folder, trained(seed=1), recipe=RECIPE, facts={"steps": 13})
    encoder, config = load_encoder(folder)
    assert same(encoder.backbone.state_dict(), trained(seed=1).backbone.state_dict())
    assert config.facts == {"steps": 13}
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}


def test_config_json_says_what_is_needed_and_no_views(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == 1
    assert config["encoder"]["stem"] == "3x3/2"
    assert set(config["data"]) == {"size", "eval_resize", "mean", "std", "bands", "groups"}
    assert Config.model_validate(config).num_features == 32


def test_loading_does_not_change_the_callers_random_state(folder: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    load_encoder(folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("place", [".", "encoder", "encoder/model.safetensors"])
def test_a_run_its_encoder_and_the_file_in_it_are_the_same_weights(folder: Path, place: str) -> None:
    write_checkpoint(folder.parent / "checkpoints" / "step_00000012.pt", trained(seed=5), step=12)
    encoder, _ = load_encoder(folder.parent / place)
    assert same(encoder.backbone.state_dict(), trained().backbone.state_dict())


def test_a_run_under_way_gives_the_query_encoder_of_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write_checkpoint(tmp_path / "checkpoints" / f"step_{step:08d}.pt", trained(seed=step), step=step)
    encoder, config = load_encoder(tmp_path)
    assert same(encoder.backbone.state_dict(), trained(seed=100).backbone.state_dict())
    assert (config.encoder, config.data, config.facts) == (TINY, RECIPE.data, {"steps": 100})


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before_and_is_mentioned(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoints" / "step_00000009.pt", trained(seed=9), step=9)
    whole = write_checkpoint(tmp_path / "checkpoints" / "step_00000010.pt", trained(seed=10), step=10)
    whole.write_bytes(whole.read_bytes()[:-3000])
    encoder, config = load_encoder(tmp_path)
    assert same(encoder.backbone.state_dict(), trained(seed=9).backbone.state_dict())
    assert "1 newer cannot be used" in config.note


def test_a_run_with_no_readable_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000010.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no checkpoint of .* can be read"):
        load_encoder(tmp_path)


def test_a_checkpoint_file_is_read(tmp_path: Path) -> None:
    encoder, _ = load_encoder(write_checkpoint(tmp_path / "any.pt", trained(), step=3))
    assert same(encoder.backbone.state_dict(), trained().backbone.state_dict())


def test_a_small_stem_is_not_inferred_and_can_be_named(tmp_path: Path) -> None:
    torch.save(trained().backbone.state_dict(), tmp_path / "some.pth")
    with pytest.raises(
        WeightsError, match="To name the network, give --architecture"
    ):  # 3x3 and 3x3/2 have the same shapes
        load_encoder(tmp_path / "some.pth")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_encoder(tmp_path / "some.pth", architecture=TINY)[0](x), trained().features(x))


def test_an_architecture_that_contradicts_the_file_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="holds a resnet10, but --architecture is resnet18"):
        load_encoder(folder, architecture="resnet18")


def test_a_module_of_the_user_is_saved_and_needed_to_load(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    encoder = build(EncoderSpec(name="custom"), model=module, size=32)
    save_encoder(tmp_path, encoder, recipe=RECIPE, facts={})
    with pytest.raises(WeightsError, match=rf"load them in Python.*: moco.load\('{tmp_path}', model=YourModule\(\)\)"):
        load_encoder(tmp_path)
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    loaded, config = load_encoder(tmp_path, model=other)
    assert (config.encoder.name, loaded.num_features) == ("custom", 5)
    assert same(other.state_dict(), module.state_dict())


@pytest.mark.parametrize("config", ["", "{}", '{"architecture": "resnet50"}', '{"format": 2}'])
def test_a_config_json_of_something_else_is_refused(folder: Path, config: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"config\.json is not a valid config\.json of an encoder \(format 1\)"):
        load_encoder(folder)


def test_missing_weights_are_refused_with_the_possible_values(tmp_path: Path) -> None:
    for weights in (tmp_path / "nowhere", "torchvision/resnet51", "timm/nobody", "resnet50"):
        with pytest.raises(RecipeError, match="expected a run folder, an encoder folder"):
            load_encoder(weights)
    with pytest.raises(WeightsError, match=r"neither a run .* nor an encoder"):
        load_encoder(tmp_path)


def test_initialize_copies_the_backbone_and_says_so(folder: Path) -> None:
    encoder = trained(seed=1)
    head = {key: value.clone() for key, value in encoder.head.state_dict().items()}
    said = initialize(encoder, folder)
    assert same(encoder.backbone.state_dict(), trained().backbone.state_dict())
    assert same(encoder.head.state_dict(), head)
    assert "tensors of resnet10 read from" in said
    assert "The head has random weights: there is none in the file" in said


def test_initialize_copies_a_head_that_fits(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "any.pt", trained(), step=3)
    encoder = trained(seed=1)
    assert initialize(encoder, file).endswith("and its head too")
    assert same(encoder.state_dict(), trained().state_dict())


def test_initialize_leaves_out_a_head_that_does_not_fit(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "any.pt", trained(), step=3)
    encoder = trained(TINY.model_copy(update={"head": "linear"}), seed=1)
    assert "the file's has other layers or sizes" in initialize(encoder, file)
    assert same(encoder.backbone.state_dict(), trained().backbone.state_dict())


def test_initialize_takes_a_file_of_torchvision(tmp_path: Path) -> None:
    theirs = models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    encoder = build(EncoderSpec(name="resnet18"))
    assert "its classifier (fc.weight, fc.bias) was left out" in initialize(encoder, tmp_path / "resnet18.pth")
    assert torch.equal(encoder.backbone.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    "spec",
    [
        TINY.model_copy(update={"stem": "3x3"}),  # equal shapes
        TINY.model_copy(update={"name": "resnet18"}),
        TINY.model_copy(update={"width": 0.125}),
    ],
)
def test_initialize_refuses_another_network_and_changes_nothing(folder: Path, spec: EncoderSpec) -> None:
    encoder = trained(spec, seed=1)
    with pytest.raises(WeightsError, match=r"expected the same network|other weights than those of"):
        initialize(encoder, folder)
    assert same(encoder.state_dict(), trained(spec, seed=1).state_dict())
