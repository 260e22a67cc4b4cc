"""`moco import`: what goes in comes out again, bit for bit, and is used as any encoder folder meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision import models

from moco.encoders import build
from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.export import export
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights
from tests.weights import reference_files
from tests.weights.small_encoders import Hostile, trained, write_checkpoint

OFFICIAL: dict[str, Callable[[], dict[str, Any]]] = reference_files.FILES | {
    "v1 released": lambda: reference_files.stripped(reference_files.v1(), keep="encoder_q."),
    "v2 released": lambda: reference_files.stripped(reference_files.v2(), keep="encoder_q."),
    "v3 vit released": lambda: reference_files.stripped(reference_files.v3_vit(), keep="base_encoder."),
}


def assert_same(one: Any, other: Any, where: str = "content") -> None:
    """The same, bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}.{i}")
    else:
        assert one == other, where


def there_and_back(folder: Path, file: Path, *, to: str, out: str, architecture: str | None = None) -> Path:
    import_weights(file, out=folder / "imported", architecture=architecture)
    export(folder / "imported", to=to, out=folder / out)
    return folder / out


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_an_official_file_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    content = OFFICIAL[name]()
    torch.save(content, tmp_path / "in.pth.tar")
    back = there_and_back(tmp_path, tmp_path / "in.pth.tar", to="fair", out="out.pth.tar")
    assert_same(torch.load(back, weights_only=True), content)


def test_an_official_file_without_wrapper_is_exported_as_their_scripts_expect(tmp_path: Path) -> None:
    state = reference_files.v1()["state_dict"]
    torch.save({key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "in.pth")
    back = there_and_back(tmp_path, tmp_path / "in.pth", to="fair", out="out.pth.tar")
    assert_same(torch.load(back, weights_only=True), {"state_dict": state})


def test_a_file_of_deit_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = reference_files.micro_vit()
    network.reset_classifier(0)
    torch.save({"model": dict(network.state_dict())}, tmp_path / "in.pth")
    back = there_and_back(tmp_path, tmp_path / "in.pth", to="deit", out="out.pth")
    assert_same(torch.load(back, weights_only=True), {"model": dict(network.state_dict())})


@pytest.mark.parametrize(("library", "ending"), [("torchvision", "pth"), ("timm", "safetensors")])
def test_an_imported_file_of_a_library_is_exported_bit_for_bit(tmp_path: Path, library: str, ending: str) -> None:
    network = models.resnet18() if library == "torchvision" else timm.create_model("resnet18", num_classes=0)
    network.fc = nn.Identity()
    state = dict(reference_files.trained(network).state_dict())
    (save_file if ending == "safetensors" else torch.save)(state, tmp_path / f"in.{ending}")
    back = there_and_back(tmp_path, tmp_path / f"in.{ending}", to=library, out=f"out.{ending}")
    read = load_file(back) if ending == "safetensors" else torch.load(back, weights_only=True)
    assert_same(dict(sorted(read.items())), dict(sorted(state.items())))


def test_a_folder_of_the_hub_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", num_classes=0)
    look = {"mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1), "input_size": (3, 64, 64), "crop_pct": 0.8}
    save_for_hf(network, str(tmp_path / "in"), model_config={"pretrained_cfg": look}, safe_serialization=True)
    back = there_and_back(tmp_path, tmp_path / "in", to="hf", out="out")
    assert_same(load_file(back / "model.safetensors"), load_file(tmp_path / "in" / "model.safetensors"))
    read = json.loads((back / "config.json").read_text())["pretrained_cfg"]
    assert {key: tuple(read[key]) if key != "crop_pct" else read[key] for key in look} == look


def test_a_folder_of_the_hub_says_what_other_network_it_is_of(tmp_path: Path) -> None:
    network = timm.create_model("test_convnext", num_classes=0)
    save_for_hf(network, str(tmp_path / "in"), safe_serialization=True)
    assert load_encoder(tmp_path / "in")[1].encoder.name == "timm/test_convnext"


def test_a_file_of_detectron2_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = reference_files.trained(models.resnet18())
    torch.save(network.state_dict(), tmp_path / "torchvision.pth")
    export(tmp_path / "torchvision.pth", to="detectron2", out=tmp_path / "in.pth")
    back = there_and_back(tmp_path, tmp_path / "in.pth", to="detectron2", out="out.pth")
    assert_same(torch.load(back, weights_only=True), torch.load(tmp_path / "in.pth", weights_only=True))


def test_tensors_of_another_type_than_the_networks_come_back_as_they_were(tmp_path: Path) -> None:
    content = OFFICIAL["v2 released"]()
    state = content["state_dict"]
    content["state_dict"] = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(content, tmp_path / "in.pth.tar")
    back = there_and_back(tmp_path, tmp_path / "in.pth.tar", to="fair", out="out.pth.tar")
    assert_same(torch.load(back, weights_only=True), content)


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """The folder made of a whole v2 file, which is beside it."""
    torch.save(reference_files.v2(), tmp_path / "in.pth.tar")
    import_weights(tmp_path / "in.pth.tar", out=tmp_path / "imported")
    return tmp_path / "imported"


def test_the_folder_holds_each_tensor_once(imported: Path) -> None:
    rest = torch.load(imported / "rest.pt", weights_only=True)
    assert rest["content"]["state_dict"]["module.encoder_q.conv1.weight"] is None
    sizes = (imported / "rest.pt").stat().st_size + (imported / "encoder" / "model.safetensors").stat().st_size
    assert sizes < 1.1 * (imported.parent / "in.pth.tar").stat().st_size


def test_the_folder_is_used_as_the_file(imported: Path) -> None:
    x = torch.randn(2, 3, 64, 64)
    ours, theirs_ = (load_encoder(weights) for weights in (imported, imported.parent / "in.pth.tar"))
    assert torch.equal(ours[0](x), theirs_[0](x))
    assert ours[1].encoder == theirs_[1].encoder
    assert (ours[1].encoder.head, ours[1].encoder.dim, ours[1].recipe) == (
        "mlp",
        reference_files.DIM,
        "MoCo v2, facebookresearch/moco",
    )
    assert ours[1].facts == {"epoch": 200, "arch": "resnet18"}


def test_training_starts_from_the_folder_with_the_head_f_k_and_queue(imported: Path) -> None:
    found = read_weights(imported, whole=True)
    state = torch.load(imported.parent / "in.pth.tar", weights_only=True)["state_dict"]
    assert found.spec is not None
    assert initialize(build(found.spec), imported).endswith("and its head too")
    assert torch.equal(found.f_k["head.0.weight"], state["module.encoder_k.fc.0.weight"])
    assert torch.equal(found.queue["keys"].T, state["module.queue"])


def test_contents_json_says_what_was_in_the_file(imported: Path) -> None:
    contents = json.loads((imported / "contents.json").read_text())
    assert contents["file"] == "in.pth.tar"
    assert contents["layout"] == "MoCo v2 (facebookresearch/moco)"
    assert (contents["queue"], contents["epoch"]) == (
        f"{reference_files.K} keys of {reference_files.DIM} dimensions",
        200,
    )
    assert contents["encoder"]["name"] == "resnet18"


def test_the_card_does_not_claim_that_a_run_made_it(imported: Path) -> None:
    card = (imported / "encoder" / "README.md").read_text()
    assert "# An image encoder, imported" in card
    assert "It was read from `in.pth.tar`" in card
    assert "license the weights as you choose" not in card


def test_a_checkpoint_of_ours_is_imported_too(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "step_00000003.pt", trained(), step=3)
    import_weights(file, out=tmp_path / "imported")
    assert_same(read_weights(tmp_path / "imported", whole=True).head, dict(trained().head.state_dict()))


@pytest.mark.parametrize("there", ["a file", "a folder with a file", "a link"])
def test_an_existing_output_is_refused_and_unchanged(imported: Path, there: str) -> None:
    out = imported.parent / "out"
    if there == "a file":
        out.write_text("mine")
    elif there == "a link":
        (imported.parent / "elsewhere").mkdir()
        out.symlink_to(imported.parent / "elsewhere")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(WeightsError, match="a new or an empty folder"):
        import_weights(imported.parent / "in.pth.tar", out=out)
    assert [path.name for path in (imported.parent / "out").glob("*")] == ["mine"] * (there == "a folder with a file")


def test_an_empty_folder_is_accepted(imported: Path) -> None:
    (imported.parent / "empty").mkdir()
    import_weights(imported.parent / "in.pth.tar", out=imported.parent / "empty")
    assert load_encoder(imported.parent / "empty")[1].encoder.name == "resnet18"


def test_a_file_of_an_unknown_network_leaves_nothing_behind(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.encoder_q.some.weight": torch.zeros(3)}}, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match="does not show which network"):
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_the_report_names_the_network_that_was_given_for_a_file_that_does_not_show_it(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "in.pth")
    with pytest.raises(WeightsError) as refused:
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    assert "heads" not in str(refused.value)  # of a ViT, which it is not
    report = str(import_weights(tmp_path / "in.pth", out=tmp_path / "out", architecture="timm/test_convnext"))
    assert "network: timm/test_convnext, " in report
    assert "linear classifier: of 1,000 classes" in report


def test_two_networks_are_refused_with_their_prefixes_first_and_the_option_of_the_command(tmp_path: Path) -> None:
    bare = {"conv.weight": torch.zeros(2, 2), "conv.bias": torch.zeros(2)}
    towers = {f"tower_{one}.{key}": value for one in "ab" for key, value in bare.items()}
    torch.save({"state_dict": towers}, tmp_path / "in.pth")
    with pytest.raises(WeightsError) as refused:
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    said = str(refused.value)
    assert "tower_a. (2 tensors), tower_b. (2 tensors)" in said
    assert said.index("--prefix") < said.index("--architecture")
    assert "heads" not in said  # of a ViT-S, which it is not


def test_a_vit_of_a_known_tool_is_asked_for_its_name_and_not_for_a_prefix(tmp_path: Path) -> None:
    vit = timm.create_model("test_vit").state_dict()
    content = {"teacher": {f"backbone.{key}": value for key, value in vit.items()}}
    torch.save(content | {"student": content["teacher"]}, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match="--architecture") as refused:
        import_weights(tmp_path / "in.pth", out=tmp_path / "out")
    assert "--prefix" not in str(refused.value)
    assert "vit_small has 12" in str(refused.value)


def test_the_report_counts_the_other_tensors_by_their_first_prefix(tmp_path: Path) -> None:
    network = models.resnet18().state_dict()
    torch.save(
        {"state_dict": {f"{one}.{key}": value for one in "ab" for key, value in network.items()}}, tmp_path / "x.pth"
    )
    assert f"other tensors: b. ({len(network)} tensors)" in str(
        import_weights(tmp_path / "x.pth", out=tmp_path / "out", prefix="a.")
    )


def test_a_hostile_file_is_not_imported_and_nothing_in_it_is_executed(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save(reference_files.v1() | {"args": Hostile(proof)}, tmp_path / "in.pth.tar")
    with pytest.raises(WeightsError, match=r"would execute .*system.*nothing in it was executed"):
        import_weights(tmp_path / "in.pth.tar", out=tmp_path / "out")
    assert not proof.exists()
    assert not (tmp_path / "out").exists()


def test_a_hostile_rest_file_is_refused_and_nothing_in_it_is_executed(imported: Path) -> None:
    proof = imported / "proof"
    torch.save({"content": Hostile(proof), "in_encoder": []}, imported / "rest.pt")
    with pytest.raises(WeightsError, match="would execute"):
        read_weights(imported, whole=True)
    assert not proof.exists()


def test_a_rest_file_of_another_encoder_is_refused(imported: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, imported / "encoder" / "model.safetensors")
    with pytest.raises(WeightsError, match="does not belong to"):
        read_weights(imported, whole=True)


@pytest.mark.parametrize("weights", ["torchvision/resnet51", "nowhere.pth"])
def test_a_missing_file_or_folder_is_refused(tmp_path: Path, weights: str) -> None:
    with pytest.raises(WeightsError, match="there are no weights"):
        import_weights(weights, out=tmp_path / "out")


def test_an_encoder_folder_needs_no_import(imported: Path) -> None:
    with pytest.raises(WeightsError, match="use it directly"):
        import_weights(imported, out=imported.parent / "again")


@pytest.mark.parametrize("out", [".", ""])
def test_the_working_directory_is_no_name_for_a_new_folder(tmp_path, monkeypatch, out):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(WeightsError, match="expected the name of a new folder"):
        import_weights(tmp_path / "w.pth", out=out)
    with pytest.raises(WeightsError, match="expected the name of a new folder"):
        export(tmp_path / "w.pth", to="hf", out=out)
