"""A run that has lost a part, or got another run's, is not continued as if nothing had happened."""

import json
import shutil

import pytest
from sample_pictures import make_pictures

from moco.data.sources.images import DataError
from moco.train.lock_folder import RunError, lock_folder
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from moco.weights.encoder_folder import WeightsError, load_encoder
from tests.train.helpers import files, stop


@pytest.fixture
def stopped(pictures, tiny, tmp_path):
    """The folder of a run that was stopped after 4 of its 10 steps."""
    return stop(pictures, tmp_path / "run", tiny)


def test_checkpoints_of_another_run_are_refused_and_not_removed(pictures, tiny, tmp_path, stopped):
    other = stop(pictures, tmp_path / "other", tiny.but(None, {"seed": 7}))
    shutil.rmtree(stopped / "checkpoints")
    shutil.copytree(other / "checkpoints", stopped / "checkpoints")
    before = files(stopped / "checkpoints")
    with pytest.raises(RunError, match=r"another recipe(?s:.*)seed: 7 -> 0"):
        pretrain(pictures, stopped, recipe=tiny)
    assert files(stopped / "checkpoints") == before


def test_a_changed_recipe_json_is_detected_by_the_checkpoint(pictures, tiny, stopped):
    file = stopped / "recipe.json"
    file.write_text(tiny.but(None, {"seed": 1, "compute.threads": 1}).to_json())
    with pytest.raises(RunError, match="seed: 0 -> 1"):
        pretrain(pictures, stopped, recipe=str(file))


@pytest.mark.parametrize("log", ["removed", "empty"])
def test_a_run_that_has_lost_checkpoints_and_log_does_not_start_again(pictures, tiny, stopped, log):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "metrics.jsonl").unlink()
    if log == "empty":
        (stopped / "metrics.jsonl").touch()
    before = files(stopped)
    with pytest.raises(RunError, match="has saved a checkpoint after step 2, but there is no checkpoint"):
        pretrain(pictures, stopped, recipe=tiny)
    assert files(stopped) == before


NUMBERS = {"images": 40, "bad_images": 0, "steps": 10, "epochs": 2.0, "seconds": 1.5}


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", "null", "{}", '{"steps": 10}', json.dumps(NUMBERS | {"seconds": "1"})]
)
def test_a_run_is_finished_only_if_finished_json_is_complete_and_its_encoder_exists(tmp_path, content):
    run = RunFolder(tmp_path)
    (tmp_path / "encoder").mkdir()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "encoder" / name).write_text("")
    (tmp_path / "finished.json").write_text(content)
    assert not run.finished
    (tmp_path / "finished.json").write_text(json.dumps(NUMBERS))
    assert run.finished
    (tmp_path / "encoder" / "config.json").unlink()
    assert not run.finished


def test_a_finished_run_that_has_lost_its_encoder_writes_it_again(pictures, tiny, tmp_path):
    out = tmp_path / "run"
    pretrain(pictures, out, recipe=tiny)
    before = files(out / "encoder")
    shutil.rmtree(out / "encoder")
    pretrain(pictures, out, recipe=tiny)
    assert files(out / "encoder") == before
    shutil.rmtree(out / "encoder")
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(RunError, match="there is no checkpoint"):
        pretrain(pictures, out, recipe=tiny)


def test_other_images_are_detected_without_the_manifest(pictures, tiny, tmp_path, stopped):
    (stopped / "manifest.jsonl.gz").unlink()
    others = make_pictures(tmp_path / "others", 40, seed=9)
    with pytest.raises(DataError, match=r"not those that(?s:.*)manifest.jsonl.gz, is missing"):
        pretrain(others, stopped, recipe=tiny)
    pretrain(pictures, stopped, recipe=tiny)
    assert json.loads((stopped / "finished.json").read_bytes())["steps"] == 10


def test_the_checkpoint_of_another_run_is_not_used_as_this_runs_encoder(pictures, tiny, tmp_path, stopped):
    load_encoder(stopped)
    other = stop(pictures, tmp_path / "other", tiny.but(None, {"seed": 7}))
    shutil.copy(other / "checkpoints" / "step_00000004.pt", stopped / "checkpoints" / "step_00000004.pt")
    (stopped / "checkpoints" / "MANIFEST.json").unlink()
    with pytest.raises(WeightsError, match="another recipe"):
        load_encoder(stopped)
    load_encoder(stopped / "checkpoints" / "step_00000004.pt")


def test_without_its_lock_file_a_folder_is_still_locked(tmp_path):
    with lock_folder(tmp_path):
        (tmp_path / ".lock").unlink()
        with pytest.raises(RunError, match="another process"), lock_folder(tmp_path):
            pass
    with lock_folder(tmp_path):
        pass
