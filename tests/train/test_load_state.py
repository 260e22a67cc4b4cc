"""A checkpoint that lacks a part, or is not of this run's steps, is skipped for the one before it, or is an error."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

from moco.runs import read_last_values
from moco.train import checkpoint
from moco.train.load_state import load_newest
from moco.train.options import RunOptions
from moco.train.plan_run import plan_job
from moco.train.pretrain import pretrain
from moco.train.resume import build_networks
from moco.train.run_folder import RunFolder
from moco.weights.encoder_folder import WeightsError, load_encoder
from moco.weights.read_checkpoint import CheckpointError
from tests import damage
from tests.damage import parent_of
from tests.train.helpers import Messages, assert_same, final_state
from tests.train.run_folders import sign


def drop(*path: str | int):
    def work(payload) -> None:
        del parent_of(payload, path)[path[-1]]

    return work


def put(value, *path: str | int):
    return lambda payload: damage.put(payload, path, value)


def halve(payload) -> None:
    model = payload["state"]["model"]
    model["dictionary.keys"] = model["dictionary.keys"][:10].clone()


DAMAGE = {
    "no recipe": (drop("recipe"), "it has no recipe"),
    "recipe is no JSON": (put("x", "recipe"), "it has no recipe"),
    "no state": (drop("state"), "no state of the model"),
    "state is a list": (put([], "state"), "no state of the model"),
    "no model": (drop("state", "model"), "no state of the model"),
    "no clock": (drop("state", "clock"), "no state of the clock"),
    "no step": (drop("state", "clock", "step"), "does not say of which step"),
    "step is text": (put("4", "state", "clock", "step"), "does not say of which step"),
    "another step": (put(3, "state", "clock", "step"), "of step 3, not of the step in its name"),
    "negative": (put(-4, "state", "clock", "step"), "of step -4, not of the step in its name"),
    "skipped": (put(-1, "state", "clock", "skipped"), "says that -1 of 4 steps were skipped"),
    "no optimizer": (drop("state", "optimizer"), "no 'optimizer' in it"),
    "optimizer is None": (put(None, "state", "optimizer"), "does not fit|that fits"),
    "no groups": (drop("state", "optimizer", "param_groups"), "no 'param_groups' in it"),
    "no momentum": (drop("state", "optimizer", "param_groups", 0, "momentum"), "settings of the optimizer"),
    "no buffers": (put({}, "state", "optimizer", "state"), "optimizer's state of the parameters is missing"),
    "one buffer is empty": (put({}, "state", "optimizer", "state", 0), "parts of the optimizer's state"),
    "a buffer of another shape": (
        put(torch.zeros(3), "state", "optimizer", "state", 0, "momentum_buffer"), "its state has other shapes",
    ),
    "no weight": (drop("state", "model", "encoder.backbone.conv1.weight"), "Missing key"),
    "no queue": (drop("state", "model", "dictionary.keys"), "Missing key"),
    "half a queue": (halve, "size mismatch"),
    "no scaler": (drop("state", "scaler"), "no 'scaler' in it"),
    "window": (put({"loss": 1}, "state", "window"), "not lists of numbers"),
    "window of text": (put({"gathered": {"loss": ["a"]}}, "state", "window"), "not lists of numbers"),
    "ranks": (put("two", "ranks"), "that the run had 'two' ranks"),
    "format": (put(2, "format"), "format 1"),
}  # fmt: skip


def damaged(folder, out, name: str, *, signed: bool):
    """The checkpoint of step 4, without a part, in a copy of the stopped run."""
    shutil.copytree(folder / "stopped", out)
    file = out / "checkpoints" / "step_00000004.pt"
    payload = torch.load(file, weights_only=True)
    DAMAGE[name][0](payload)
    torch.save(payload, file)
    if signed:
        sign(file.parent, file.name)
    else:
        entries = json.loads((file.parent / "MANIFEST.json").read_text())
        (file.parent / "MANIFEST.json").write_text(json.dumps([one for one in entries if one["name"] != file.name]))
    return file


@pytest.fixture(scope="module")
def state(runs):
    pictures, recipe, folder = runs
    job = plan_job(
        pictures, folder / "none", torch.device("cpu"), RunOptions(), recipe=recipe, model=None, changes={}, init=None
    )
    return job.state(build_networks(job, model=None, init=None, fresh=True).contrast)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_lacks_a_part_is_skipped_for_the_one_before_it(runs, state, tmp_path, name, signed):
    _, recipe, folder = runs
    file, said = damaged(folder, tmp_path / "run", name, signed=signed), []
    load_newest(file.parent, state, recipe, say=said.append)
    assert state.clock.step == 2
    (caution,) = said
    assert caution.startswith("caution: checkpoint step_00000004.pt is ")
    assert any(part in caution for part in DAMAGE[name][1].split("|"))


@pytest.mark.parametrize(("name", "signed"), [("no optimizer", True), ("no weight", True), ("another step", False)])
def test_a_run_that_skips_one_ends_with_the_same_bits_and_the_file_stays(runs, tmp_path, name, signed):
    pictures, recipe, folder = runs
    file = damaged(folder, tmp_path / "run", name, signed=signed)
    content = file.read_bytes()
    pretrain(pictures, tmp_path / "run", recipe=recipe)
    assert_same(final_state(tmp_path / "run"), final_state(folder / "whole"))
    assert any(one.read_bytes() == content for one in file.parent.glob("step_00000004.pt*"))  # it may be the user's


def test_without_a_checkpoint_before_it_the_error_says_what_is_wrong(runs, tmp_path):
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        payload = torch.load(file, weights_only=True)
        del payload["state"]["optimizer"]
        torch.save(payload, file)
        sign(file.parent, file.name)
    with pytest.raises(CheckpointError, match=r"can be used: step_00000004\.pt is not a(?s:.*)no 'optimizer' in it"):
        pretrain(pictures, tmp_path / "run", recipe=recipe)


def with_checkpoint_beyond_the_end(folder: Path, run: Path, *, signed: bool) -> Path:
    """Copy the stopped run, and add a checkpoint of step 11 of 10. Returns the folder of its checkpoints."""
    shutil.copytree(folder / "stopped", run)
    place = run / "checkpoints"
    payload = torch.load(place / "step_00000004.pt", weights_only=True)
    payload["state"]["clock"]["step"] = 11
    torch.save(payload, place / "step_00000011.pt")
    if signed:
        sign(place, "step_00000011.pt")
    return place


@pytest.mark.parametrize("signed", [True, False])
def test_a_checkpoint_beyond_the_end_of_the_run_is_skipped_and_stays(runs, tmp_path, signed):
    pictures, recipe, folder = runs
    place = with_checkpoint_beyond_the_end(folder, tmp_path / "run", signed=signed)
    content, messages = (place / "step_00000011.pt").read_bytes(), Messages()
    pretrain(pictures, tmp_path / "run", recipe=recipe, reporter=messages)
    assert any("step_00000011.pt is of step 11, and this run ends at step 10" in line for line in messages.lines)
    file = place / ("step_00000011.pt.other" if signed else "step_00000011.pt")
    assert file.read_bytes() == content
    file.unlink()
    assert_same(final_state(tmp_path / "run"), final_state(folder / "whole"))


@pytest.mark.parametrize("signed", [True, False])
def test_readers_of_weights_skip_a_checkpoint_beyond_the_end_of_the_run(runs, tmp_path, signed):
    _, _, folder = runs
    with_checkpoint_beyond_the_end(folder, tmp_path / "run", signed=signed)
    message = r"step_00000011\.pt is of step 11, and this run ends at step 10"
    with pytest.warns(UserWarning, match=message):
        assert load_encoder(tmp_path / "run")[1].facts["steps"] == 4
    with pytest.warns(UserWarning, match=message):
        assert read_last_values(RunFolder(tmp_path / "run"))["step"] == 4


@pytest.mark.parametrize("name", ["no recipe", "no state", "no model", "no clock", "another step"])
def test_readers_of_weights_skip_it_too(runs, tmp_path, name):
    _, _, folder = runs
    file = damaged(folder, tmp_path / "run", name, signed=True)
    with pytest.warns(UserWarning, match=r"step_00000004\.pt is .*using the one before it"):
        assert load_encoder(tmp_path / "run")[1].facts["steps"] == 2
    (file.parent / "step_00000002.pt").unlink()
    with pytest.warns(UserWarning, match="using the one before it"), pytest.raises(WeightsError, match="can be read"):
        load_encoder(tmp_path / "run")


def test_a_checkpoint_of_an_older_version_without_a_window_leaves_none_of_a_later_one(runs, tmp_path):
    """The window of the checkpoint of step 4, which is skipped, must not be logged with the steps after step 2."""
    pictures, recipe, folder = runs
    shutil.copytree(folder / "stopped", tmp_path / "run")
    place = tmp_path / "run" / "checkpoints"
    early, late = (torch.load(place / f"step_0000000{step}.pt", weights_only=True) for step in (2, 4))
    early["state"].pop("window")
    late["state"]["window"] = {"gathered": {"loss": [1000.0]}}
    late["state"]["optimizer"]["state"][0] = {}
    for payload in (early, late):
        name = checkpoint.checkpoint_name(payload["state"]["clock"]["step"])
        torch.save(copy.deepcopy(payload), place / name)
        sign(place, name)
    run = pretrain(pictures, tmp_path / "run", recipe=recipe)
    assert max(record.get("loss", 0) for record in run.metrics()) < 100
