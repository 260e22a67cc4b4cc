"""What may be in --out, what --overwrite removes, and what is refused: nothing of the user's is removed."""

import shutil
from pathlib import Path

import pytest

from moco.train.existing_folder import State
from moco.train.open_run import open_run
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError, RunFolder
from moco.weights.errors import WeightsError
from tests.train.run_folders import begin, contents, whole


def test_a_folder_whose_recipe_json_is_not_a_recipe_is_refused(tmp_path, tiny):
    out = tmp_path / "kitchen"
    out.mkdir()
    for name in ("recipe.json", "train.log", "scores.json", "manifest_1.png", "curves.png"):
        (out / name).write_text('{"flour": "200 g"}')
    before = contents(out)
    with pytest.raises(RunError, match=r"recipe\.json is not a recipe .*another --out, or --overwrite"):
        begin(out, tiny)
    assert contents(out) == before
    assert not (out / ".lock").exists()


@pytest.mark.parametrize(
    "name",
    ["train.log", "scores.json", "curves.png", "encoder/model.safetensors", "encoder/README.md", "bad_images.csv",
     "metrics.jsonl", "provenance.json", "init.json", "manifest.jsonl.gz", "saved.json",
     "nan/step_00000001/facts.json"],
)  # fmt: skip
def test_a_users_file_with_the_name_of_a_runs_file_is_refused(tmp_path, tiny, name):
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / "recipe.json").write_text(tiny.to_json())
    (out / name).write_text("dear diary\n")
    before = contents(out)
    with pytest.raises(RunError, match=rf"{Path(name).name}.* would be replaced"):
        begin(out, tiny)
    assert contents(out) == before


def test_a_recipe_that_was_not_written_by_a_run_is_not_replaced(tmp_path, tiny):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "recipe.json").write_text(tiny.to_json())
    with pytest.raises(RunError, match=r"was not written by a run.*\n.*optim\.epochs: 2 -> 3"):
        begin(out, tiny.but(None, {"optim.epochs": 3}))
    assert (out / "recipe.json").read_text() == tiny.to_json()
    assert begin(out, tiny) is State.NOT_STARTED


def test_a_run_that_failed_before_its_first_step_is_replaced_by_one_with_other_options(tmp_path, tiny):
    begin(tmp_path / "run", tiny)
    assert begin(tmp_path / "run", tiny.but(None, {"optim.epochs": 3})) is State.NOT_STARTED


def test_a_finished_run_without_checkpoints_and_log_keeps_its_encoder(tmp_path, tiny):
    out = tmp_path / "run"
    whole(out, tiny)
    for path in (out / "checkpoints", out / "nan"):
        shutil.rmtree(path)
    (out / "metrics.jsonl").unlink()
    assert begin(out, tiny) is State.FINISHED
    with pytest.raises(RunError, match="another recipe"):
        begin(out, tiny.but(None, {"seed": 7}))
    assert (out / "encoder" / "model.safetensors").exists()


@pytest.mark.parametrize("resume", ["auto", "must"])
@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_run_whose_checkpoints_are_missing_does_not_start_again(tmp_path, tiny, resume, left):
    out = tmp_path / "run"
    whole(out, tiny, finishes=False)
    shutil.rmtree(out / "checkpoints")
    if left != "nothing":
        (out / "checkpoints").mkdir()
    before = contents(out)
    with pytest.raises(RunError, match=r"logged 4 steps, but there is no checkpoint.*not mounted"):
        begin(out, tiny, resume=resume)
    assert contents(out) == before


def test_a_run_killed_before_its_first_checkpoint_resumes_by_auto_but_not_by_must(tmp_path, tiny):
    whole(tmp_path / "run", tiny, saves=False, finishes=False)
    assert begin(tmp_path / "run", tiny) is State.NOT_SAVED
    with pytest.raises(RunError, match="--resume must expects"):
        begin(tmp_path / "run", tiny, resume="must")


def test_a_run_resumes_from_restored_checkpoints(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    (run.path / "finished.json").unlink()
    (run.path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="not mounted"):
        pretrain(pictures, tmp_path / "run", recipe=tiny)
    (tmp_path / "elsewhere").rename(run.path / "checkpoints")
    pretrain(pictures, tmp_path / "run", recipe=tiny, resume="must")
    assert (run.path / "finished.json").exists()


def test_more_epochs_for_a_finished_run_are_refused_with_advice(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    with pytest.raises(RunError, match=r"optim\.epochs: 2 -> 3\n.*--init \S+run with another --out"):
        begin(tmp_path / "run", tiny.but(None, {"optim.epochs": 3}))


@pytest.mark.parametrize("there", ["nothing", "runs", "runs/new"])
def test_a_run_that_is_refused_before_it_starts_leaves_no_folder(pictures, tiny, tmp_path, there):
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    if there != "nothing":
        (tmp_path / there).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WeightsError):
        pretrain(pictures, tmp_path / "runs" / "new", recipe=tiny, init=tmp_path / "weights.pth")
    assert sorted(tmp_path.rglob("*")) == before


def test_other_files_in_a_folder_that_a_refused_run_has_made_stay(tiny, tmp_path):
    with open_run(RunFolder(tmp_path / "runs" / "new"), tiny, resume="auto"):
        (tmp_path / "runs" / "other").write_text("mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "other"]
