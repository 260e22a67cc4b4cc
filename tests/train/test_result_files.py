"""What a run writes at its end: files of the user are not replaced, and damaged ones are not believed."""

import json
import os
import shutil

import pytest

from moco.train.existing_folder import State, read_stored_recipe
from moco.train.pretrain import pretrain
from moco.train.result_files import finish_run
from moco.train.run_folder import RunError, RunFolder
from moco.weights.encoder_folder import WeightsError, load_encoder
from tests.train.helpers import StopAt, files, stop
from tests.train.run_folders import begin, contents, whole


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_finished_json_in_a_run_without_a_step_is_refused_and_stays(tmp_path, tiny):
    begin(tmp_path, tiny)
    (tmp_path / "finished.json").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"finished\.json exists"):
        begin(tmp_path, tiny)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
@pytest.mark.parametrize("saves", [True, False])
def test_a_users_encoder_in_an_unfinished_run_is_refused_and_stays(tmp_path, tiny, name, saves):
    whole(tmp_path, tiny, saves=saves, finishes=False)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=f"encoder/{name} is not from this run"):
        begin(tmp_path, tiny)
    assert contents(tmp_path) == before


def test_other_files_in_encoder_do_not_matter(tmp_path, tiny):
    whole(tmp_path, tiny, finishes=False)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "notes.txt").write_text("mine")
    assert begin(tmp_path, tiny) is State.SAVED


def test_a_run_that_was_killed_while_it_wrote_its_encoder_goes_on(pictures, tiny, tmp_path, monkeypatch):
    from moco.train import result_files

    class Killed(BaseException):
        pass

    original = result_files.write_atomically

    def write(path, content):
        original(path, content)
        if path.name == "config.json":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(result_files, "write_atomically", write)
        with pytest.raises(Killed):
            pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert sorted(path.name for path in (tmp_path / "run" / "encoder").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert RunFolder(tmp_path / "run").finished


def test_notes_that_no_run_has_written_are_renamed_by_a_resumed_run(pictures, tiny, tmp_path):
    out = stop(pictures, tmp_path / "run", tiny)
    for name in ("finished.json", "provenance.json", "saved.json"):
        (out / name).write_text(f"my {name}")
    said = []
    reporter = StopAt(99)
    reporter.say = said.append
    pretrain(pictures, out, recipe=tiny, reporter=reporter)
    for name in ("finished.json", "provenance.json", "saved.json"):
        assert (out / f"{name}.other").read_text() == f"my {name}"
    assert any("saved.json.other" in line for line in said)


@pytest.mark.parametrize("content", ["mine", '{"mine": 1}', "[1, 2]"])
def test_a_manifest_that_no_run_has_written_is_renamed_by_a_resumed_run(pictures, tiny, tmp_path, content):
    place = stop(pictures, tmp_path / "run", tiny) / "checkpoints"
    (place / "MANIFEST.json").write_text(content)
    pretrain(pictures, place.parent, recipe=tiny)
    assert (place / "MANIFEST.json.other").read_text() == content
    assert json.loads((place / "MANIFEST.json").read_text())[-1]["name"] == "step_00000010.pt"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_encoder_of_a_finished_run_is_noticed_and_written_again(pictures, tiny, tmp_path, name):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    before, file = files(out / "encoder"), out / "encoder" / name
    flip(file)
    with pytest.raises(RunError, match=f"encoder/{name} is damaged.*Move it away"):
        pretrain(pictures, out, recipe=tiny)
    file.rename(tmp_path / "away")
    pretrain(pictures, out, recipe=tiny)
    assert files(out / "encoder") == before


def test_a_damaged_encoder_without_checkpoints_is_to_come_from_a_backup(pictures, tiny, tmp_path):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    shutil.rmtree(out / "checkpoints")
    flip(out / "encoder" / "model.safetensors")
    with pytest.raises(RunError, match=r"is damaged.*has no checkpoint to write it again from"):
        pretrain(pictures, out, recipe=tiny)


def test_the_encoder_of_another_run_is_refused_in_a_finished_run(pictures, tiny, tmp_path):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    other = pretrain(pictures, tmp_path / "other", recipe=tiny.but(None, {"seed": 7})).path
    shutil.rmtree(out / "encoder")
    shutil.copytree(other / "encoder", out / "encoder")
    with pytest.raises(RunError, match="was not written by this run"):
        pretrain(pictures, out, recipe=tiny)


def test_the_encoder_of_another_run_is_not_loaded_as_this_runs(pictures, tiny, tmp_path):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    other = pretrain(pictures, tmp_path / "other", recipe=tiny.but(None, {"seed": 7})).path
    load_encoder(out)
    (out / "encoder").rename(tmp_path / "own")
    shutil.copytree(other / "encoder", out / "encoder")
    with pytest.raises(WeightsError, match=r"encoder/model\.safetensors is damaged, was changed, or is not from this"):
        load_encoder(out)
    load_encoder(out / "encoder")
    shutil.copy(other / "finished.json", out / "finished.json")
    with pytest.raises(WeightsError, match="is not from this run"):
        load_encoder(out)
    with pytest.raises(RunError, match="was not written by this run"):
        pretrain(pictures, out, recipe=tiny)


def test_the_encoder_of_another_run_is_not_loaded_from_an_unfinished_run(pictures, tiny, tmp_path):
    out = stop(pictures, tmp_path / "run", tiny)
    other = pretrain(pictures, tmp_path / "other", recipe=tiny).path
    shutil.copytree(other / "encoder", out / "encoder")
    with pytest.raises(WeightsError, match="is not from this run"):
        load_encoder(out)


def test_a_file_that_appears_during_the_run_is_renamed_and_not_replaced(tmp_path, tiny):
    run = whole(tmp_path, tiny, finishes=False)
    (run.path / "encoder").mkdir()
    (run.path / "encoder" / "README.md").write_text("mine")
    moved = finish_run(run, {"encoder/README.md": b"ours"}, {})
    assert moved == ["README.md.other"]
    assert (run.path / "encoder" / "README.md.other").read_text() == "mine"
    assert finish_run(run, {"encoder/README.md": b"ours"}, {}) == []


def test_a_model_card_may_be_edited(pictures, tiny, tmp_path):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    (out / "encoder" / "README.md").write_text("my card")
    pretrain(pictures, out, recipe=tiny)
    assert (out / "encoder" / "README.md").read_text() == "my card"


def test_a_finished_run_of_an_older_version_is_checked_by_its_config_json(pictures, tiny, tmp_path):
    out = pretrain(pictures, tmp_path / "run", recipe=tiny).path
    for note in ("finished.json", "saved.json"):
        noted = json.loads((out / note).read_text())
        del noted["sha256"]
        (out / note).write_text(json.dumps(noted))
    pretrain(pictures, out, recipe=tiny)
    flip(out / "encoder" / "model.safetensors")
    with pytest.raises(RunError, match="is damaged"):
        pretrain(pictures, out, recipe=tiny)


SPECIAL = (
    "finished.json",
    "saved.json",
    "metrics.jsonl",
    "manifest.jsonl.gz",
    "checkpoints/MANIFEST.json",
    "curves.png",
)
CHECKPOINTS = ("checkpoints/step_00000004.pt", "checkpoints/step_00000006.pt")  # the manifest lists the first
REPORTS = ("nan/step_00000002/facts.json", "nan/step_00000002/checkpoint.pt", "nan/step_00000003")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [*SPECIAL, "recipe.json", "encoder/config.json", *CHECKPOINTS, *REPORTS])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(tmp_path, tiny, name, overwrite):
    run = whole(tmp_path, tiny, finishes=False)
    file = run.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    stored = read_stored_recipe(run.path)
    assert stored == (None if name in ("recipe.json", "checkpoints/MANIFEST.json") else tiny)
    with pytest.raises(RunError, match=f"{name} is a pipe"):
        begin(run.path, tiny, overwrite=overwrite)


@pytest.mark.parametrize("target", ["a device", "a pipe"])
def test_a_link_to_a_device_or_a_pipe_is_refused_too(tmp_path, tiny, target):
    run = whole(tmp_path / "run", tiny, finishes=False)
    os.mkfifo(tmp_path / "pipe")
    (run.checkpoints / "step_00000006.pt").symlink_to("/dev/zero" if target == "a device" else tmp_path / "pipe")
    with pytest.raises(RunError, match=r"step_00000006\.pt is a pipe, a socket or a device"):
        begin(run.path, tiny)
