"""A run has an id. Its checkpoints carry it, so an intact checkpoint of another run of the same recipe is not used."""

import json
import shutil

import pytest
import torch

from moco.runs import read_last_values
from moco.train.pretrain import pretrain
from moco.train.restore_networks import restore_networks
from moco.train.run_folder import RunFolder
from moco.weights.encoder_folder import load_encoder
from moco.weights.own_files import read_run_id
from moco.weights.read_checkpoint import CheckpointError, read_checkpoint
from tests.train.helpers import Messages, assert_same, final_state
from tests.train.run_folders import sign

LATE = "step_00000008.pt"


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the stopped run, and a checkpoint of the whole run of the same recipe among its own."""
    _, _, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    theirs = next((folder / "whole" / "checkpoints").glob("step_00000010.pt"))
    payload = read_checkpoint(theirs)
    payload["state"]["clock"]["step"] = 8
    torch.save(payload, tmp_path / "run" / "checkpoints" / LATE)
    return tmp_path / "run"


def without_ids(out) -> None:
    """Change the run into one of a version without ids."""
    note = json.loads((out / "saved.json").read_bytes())
    (out / "saved.json").write_text(json.dumps({name: value for name, value in note.items() if name != "run_id"}))
    for file in (out / "checkpoints").glob("step_*.pt"):
        payload = read_checkpoint(file)
        payload.pop("run_id", None)
        torch.save(payload, file)
        sign(file.parent, file.name)


@pytest.mark.parametrize("signed", [True, False])
def test_a_checkpoint_of_another_run_of_the_same_recipe_is_skipped_and_stays(runs, copied, signed):
    pictures, recipe, folder = runs
    place = copied / "checkpoints"
    if signed:
        sign(place, LATE)
    content, messages = (place / LATE).read_bytes(), Messages()
    pretrain(pictures, copied, recipe=recipe, reporter=messages)
    assert any(f"{LATE} is of another run" in line for line in messages.lines)
    assert any(f"resuming {copied} at step 4 of 10" in line for line in messages.lines)
    assert any(file.read_bytes() == content for file in place.glob(f"{LATE}*"))
    assert_same(final_state(copied), final_state(folder / "whole"))


@pytest.mark.parametrize("signed", [True, False])
def test_readers_skip_a_checkpoint_of_another_run(runs, copied, signed):
    _, recipe, _ = runs
    if signed:
        sign(copied / "checkpoints", LATE)
    with pytest.warns(UserWarning, match=f"{LATE} is of another run"):
        assert load_encoder(copied)[1].facts["steps"] == 4
    with pytest.warns(UserWarning, match=f"{LATE} is of another run"):
        assert read_last_values(RunFolder(copied))["step"] == 4
    with pytest.raises(CheckpointError, match="of another run"):
        restore_networks(RunFolder(copied), recipe, torch.device("cpu"), num_images=40, step=8)
    assert load_encoder(copied / "checkpoints" / LATE)[1].facts["steps"] == 8  # the user has named this file


def test_if_all_checkpoints_are_of_another_run_the_error_says_so(runs, tmp_path):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(folder / "whole" / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"can be used: .*of another run(?s:.*)move the files of other runs away"):
        pretrain(pictures, tmp_path / "run", recipe=recipe)


def test_a_run_keeps_its_id_in_all_of_its_checkpoints(runs, tmp_path):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "moved")
    before = read_run_id(folder / "stopped")
    assert isinstance(before, str)
    assert before != read_run_id(folder / "whole")
    pretrain(pictures, tmp_path / "moved", recipe=recipe, save_every=3)
    assert read_run_id(tmp_path / "moved") == before
    files = list((tmp_path / "moved" / "checkpoints").glob("step_*.pt"))
    assert {read_checkpoint(file)["run_id"] for file in files} == {before}
    assert len(files) == 3
    pretrain(pictures, tmp_path / "moved", recipe=recipe, overwrite=True)
    assert read_run_id(tmp_path / "moved") not in (None, before)


def test_a_run_of_a_version_without_ids_is_resumed(runs, tmp_path):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    without_ids(tmp_path / "run")
    pretrain(pictures, tmp_path / "run", recipe=recipe)
    assert_same(final_state(tmp_path / "run"), final_state(folder / "whole"))


def test_a_lost_id_is_taken_from_the_checkpoint_that_the_run_resumes_from(runs, tmp_path):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    (tmp_path / "run" / "saved.json").unlink()
    pretrain(pictures, tmp_path / "run", recipe=recipe)
    assert read_run_id(tmp_path / "run") == read_run_id(folder / "stopped")
    assert_same(final_state(tmp_path / "run"), final_state(folder / "whole"))


def test_two_runs_with_the_same_seed_have_different_ids_and_the_same_bits(runs, tmp_path):
    pictures, recipe, folder = runs
    torch.manual_seed(1)
    before = torch.get_rng_state()
    RunFolder(tmp_path).record_start()
    assert torch.equal(torch.get_rng_state(), before)
    pretrain(pictures, tmp_path / "again", recipe=recipe)
    assert read_run_id(tmp_path / "again") != read_run_id(folder / "whole")
    assert_same(final_state(tmp_path / "again"), final_state(folder / "whole"))


@pytest.mark.parametrize(
    "damage", [{"run_id": 5}, {"run_id": ""}, {"run_id": "flipped"}, {"sha256": {"a": 5}}, {"sha256": {"a": [[1]]}},
               {"first_step": "x"}],
)  # fmt: skip
def test_a_damaged_saved_json_is_renamed_and_does_not_make_the_runs_own_checkpoints_foreign(
    runs,
    tmp_path,
    damage,
):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    file = tmp_path / "run" / "saved.json"
    note = json.loads(file.read_bytes())
    if damage == {"run_id": "flipped"}:
        damage = {"run_id": note["run_id"].translate(str.maketrans("0123456789abcdef", "1032547698badcfe"))}
    file.write_text(json.dumps(note | damage))
    pretrain(pictures, tmp_path / "run", recipe=recipe)
    assert read_run_id(tmp_path / "run") == note["run_id"]
    assert (tmp_path / "run" / "saved.json.other").is_file()
    assert_same(final_state(tmp_path / "run"), final_state(folder / "whole"))
