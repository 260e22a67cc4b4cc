"""A flipped bit is noticed by everything that reads weights of a run, not by resume alone."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torchvision import models

from moco import recipes
from moco.encoders import build
from moco.recipe import DataSpec, EncoderSpec
from moco.train import checkpoint
from moco.train.checkpoint import Clock, TrainState
from moco.weights.encoder_folder import WeightsError, load_encoder, save_encoder
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights

SPEC = EncoderSpec(name="resnet18", stem="3x3", width=0.0625, dim=8)
RECIPE = recipes.named("demo").model_copy(update={"name": "tiny", "encoder": SPEC, "data": DataSpec(size=16)})


class Holds:
    """A state that is what it was given."""

    def __init__(self, state: dict):
        self.state = state

    def state_dict(self) -> dict:
        return self.state

    def load_state_dict(self, state: dict) -> None:
        self.state = state


def encoder(seed: int):
    torch.manual_seed(seed)
    return build(SPEC, size=16)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run under way, with the checkpoints of steps 1 and 2."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    for step in (1, 2):
        model = {f"encoder.{key}": value for key, value in encoder(step).state_dict().items()}
        state = TrainState(Holds(model), Holds({}), Clock(10, 10, step))
        checkpoint.save(tmp_path / "checkpoints", state, recipe=RECIPE.to_json())
    return tmp_path


def flip(file: Path) -> None:
    """Change a bit among the numbers: torch reads the file without a word."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)


def step_read(run: Path, *, whole: bool) -> int:
    """Of which step the weights are that are read from `run`."""
    weight = read_weights(run, whole=whole).backbone["conv1.weight"]
    return next(step for step in (1, 2) if torch.equal(weight, encoder(step).backbone.conv1.weight))


@pytest.mark.parametrize("whole", [False, True])
def test_every_reader_replaces_a_damaged_checkpoint_by_the_one_before_with_a_warning(run, whole):
    assert step_read(run, whole=whole) == 2
    flip(run / "checkpoints" / "step_00000002.pt")
    with pytest.warns(UserWarning, match=r"step_00000002\.pt is damaged"):
        assert step_read(run, whole=whole) == 1


@pytest.mark.parametrize("name", ["step_best.pt", "step_²².pt", "step_9.pt", "step_000000003.pt", "step_99999999.pt"])
def test_a_copied_checkpoint_under_another_name_is_not_the_newest(run, name):
    """The last of them has the name of a checkpoint, and holds an earlier step."""
    shutil.copy(run / "checkpoints" / "step_00000001.pt", run / "checkpoints" / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert step_read(run, whole=True) == 2
        assert checkpoint.newest_intact(run / "checkpoints").name == "step_00000002.pt"


def test_copies_under_other_names_stay_when_others_are_saved(run):
    folder = run / "checkpoints"
    for name in ("step_best.pt", "step_²².pt", "step_1.pt"):
        shutil.copy(folder / "step_00000001.pt", folder / name)
    (folder / ".tmp-x").mkdir()
    checkpoint.save(folder, TrainState(Holds({}), Holds({}), Clock(10, 10, 3)), recipe="{}", keep=1)
    assert {path.name for path in folder.iterdir()} == {
        ".tmp-x", "MANIFEST.json", "step_00000003.pt", "step_best.pt", "step_²².pt", "step_1.pt",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["checkpoints/step_00000002.pt", "step_best.pt", "kept.pth"])
def test_a_checkpoint_that_is_named_is_refused_when_it_is_damaged(run, place):
    """One in its place by the manifest, a copy by the checksums inside of it."""
    file = run / place
    if not file.exists():
        shutil.copy(run / "checkpoints" / "step_00000002.pt", file)
    read_weights(file)
    flip(file)
    with pytest.raises(WeightsError, match="is damaged"):
        read_weights(file)


def test_with_all_checkpoints_damaged_the_encoder_is_used_with_a_warning_or_nothing(run):
    for file in (run / "checkpoints").glob("*.pt"):
        flip(file)
    with pytest.warns(UserWarning, match="using the one before"), pytest.raises(WeightsError, match="can be read"):
        read_weights(run, whole=True)
    save_encoder(run / "encoder", encoder(1), recipe=RECIPE, facts={})
    with pytest.warns(UserWarning, match="Using .*encoder instead, which has only the backbone of f_q"):
        assert step_read(run, whole=True) == 1


def test_a_flipped_bit_of_an_encoder_folder_is_noticed(tmp_path):
    save_encoder(tmp_path / "encoder", encoder(1), recipe=RECIPE, facts={})
    load_encoder(tmp_path)
    flip(tmp_path / "encoder" / "model.safetensors")
    with pytest.raises(WeightsError, match="its SHA-256 is not that in config"):
        load_encoder(tmp_path)


def test_a_changed_number_in_config_json_is_noticed_unless_its_checksum_was_removed(tmp_path):
    save_encoder(tmp_path, encoder(1), recipe=RECIPE, facts={"steps": 3})
    file = tmp_path / "config.json"
    text = file.read_text()
    file.write_text(text.replace('"steps": 3', '"steps": 2'))
    with pytest.raises(WeightsError, match=r"config\.json is damaged"):
        load_encoder(tmp_path)
    changed = json.loads(file.read_text())
    del changed["config_sha256"]
    file.write_text(json.dumps(changed))
    assert load_encoder(tmp_path)[1].facts == {"steps": 2}
    file.write_text(json.dumps(json.loads(text)))  # the same in another form
    assert load_encoder(tmp_path)[1].facts == {"steps": 3}


def flip_in(file: Path, tensor: torch.Tensor) -> None:
    """Change one bit of `tensor` in the file."""
    content, wanted = bytearray(file.read_bytes()), tensor.contiguous().numpy().tobytes()
    content[content.index(wanted)] ^= 1
    file.write_bytes(content)


@pytest.fixture
def foreign(tmp_path) -> tuple[Path, torch.Tensor]:
    """A file of torch.save that is not of this project, and a tensor in it."""
    torch.manual_seed(0)
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "foreign.pth")
    return tmp_path / "foreign.pth", state["layer1.0.conv1.weight"]


def test_a_flipped_bit_in_a_foreign_file_is_noticed_by_the_checksums_in_it(foreign, tmp_path):
    load_encoder(foreign[0])
    flip_in(*foreign)
    torch.load(foreign[0], weights_only=True)  # which does not look
    with pytest.raises(WeightsError, match="is damaged"):
        load_encoder(foreign[0])
    with pytest.raises(WeightsError, match="is damaged"):
        import_weights(foreign[0], out=tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_a_file_without_checksums_is_accepted(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(models.resnet18().state_dict(), tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    load_encoder(tmp_path / "w.pth")


@pytest.mark.parametrize("file", ["encoder/model.safetensors", "rest.pt"])
def test_a_flipped_bit_in_an_imported_folder_is_noticed_by_who_goes_on_training(foreign, tmp_path, file):
    imported = tmp_path / "imported"
    import_weights(foreign[0], out=imported)
    read_weights(imported, whole=True)
    fc = torch.load(imported / "rest.pt", weights_only=True)["content"]["fc.weight"]
    flip_in(imported / file, fc if file == "rest.pt" else foreign[1])
    with pytest.raises(WeightsError, match="is damaged"):
        read_weights(imported, whole=True)
