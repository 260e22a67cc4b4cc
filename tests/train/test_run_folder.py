"""What may be in --out, what --overwrite removes, and what is refused: nothing of the user's is removed."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from making import make_pictures

from moco.data.sources.folder import find_images
from moco.recipe import Recipe
from moco.train import checkpoint, replace
from moco.train.checkpoint import Clock, TrainState
from moco.train.folder_state import State, state_of
from moco.train.open_run import open_run, start_run
from moco.train.out_check import check_apart
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError, RunFolder, note_init, note_start


class Box:
    """A state of a few numbers."""

    def state_dict(self) -> dict:
        return {"x": torch.zeros(3)}

    def load_state_dict(self, state_dict: dict) -> None: ...


def begin(out: Path, recipe: Recipe, **options) -> State:
    """What `pretrain` does to the folder before the first step. Gives what was there."""
    with open_run(out, recipe, **{"resume": "auto"} | options) as there:
        if not there.started:
            run = RunFolder(out)
            start_run(run, recipe)
            note_init(run, "w.pth", ["read"])
            note_start(run, 0, {"versions": {}})
    return there


def whole(out: Path, recipe: Recipe, *, steps: int = 4, saves: bool = True, finishes: bool = True) -> RunFolder:
    """A run with everything that a run can leave."""
    begin(out, recipe)
    run = RunFolder(out)
    run.log(*({"step": step, "epoch": 0.0, "loss": 1.0} for step in range(1, steps + 1)))
    if saves:
        checkpoint.save(run.checkpoints, TrainState(Box(), Box(), Clock(10, 10, steps)), recipe=recipe.to_json())
        run.note_saved(steps)
    if finishes:
        names = ("train.log", "bad_images.csv", "manifest.jsonl.gz", "scores.json", "curves.png", "neighbours.png")
        nan = ("nan/step_00000002/facts.json", "nan/step_00000002/checkpoint.pt")
        encoder = ("encoder/model.safetensors", "encoder/config.json", "encoder/README.md")
        for name in (*names, *nan, *encoder, "finished.json"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(b"{}")
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Overwriting


def test_overwriting_leaves_an_empty_run_and_every_file_of_the_user(tmp_path, tiny):
    out = tmp_path / "run"
    whole(out, tiny)
    theirs = {
        "notes.txt", "manifest_of_my_dataset.csv", "manifest.jsonl", "encoder/mine.txt", "checkpoints/step_best.pt",
        "checkpoints/step_4.pt", "nan/step_00000002/mine.txt", "nan/step_x/facts.json", "nan/facts.json",
    }  # fmt: skip
    for name in theirs:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    assert begin(out, tiny, overwrite=True) is State.NOT_STARTED
    kept = theirs | {"recipe.json", "init.json", "provenance.json", "saved.json"}
    assert set(contents(out)) == kept
    assert all(contents(out)[name] == b"mine" for name in theirs)
    assert state_of(RunFolder(out)) is State.NOT_STARTED


def test_overwriting_removes_the_folder_of_a_refused_step_with_its_files(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    begin(tmp_path / "run", tiny, overwrite=True)
    assert list((tmp_path / "run" / "nan").iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoints", "encoder", "nan", "nan/step_00000002", "nan/step_00000007"])
def test_overwriting_follows_no_link_to_a_folder(tmp_path, tiny, name):
    out, home = tmp_path / "run", tmp_path / "home"
    whole(out, tiny)
    home.mkdir()
    for file in ("facts.json", "checkpoint.pt", "step_00000009.pt", "model.safetensors"):
        (home / file).write_text("precious")
    (home / "step_00000002").mkdir()
    (home / "step_00000002" / "facts.json").write_text("precious")
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).symlink_to(home)
    before, inside = contents(home), contents(out)
    with pytest.raises(RunError, match="is a link"):
        begin(out, tiny, overwrite=True)
    assert contents(home) == before
    assert contents(out) == inside


@pytest.mark.parametrize(
    "name", ["finished.json", "scores.json", "encoder/config.json", "nan/step_00000002/facts.json"]
)
def test_overwriting_removes_a_link_to_a_file_and_not_the_file(tmp_path, tiny, name):
    out, precious = tmp_path / "run", tmp_path / "precious"
    whole(out, tiny)
    precious.write_text("precious")
    (out / name).unlink()
    (out / name).symlink_to(precious)
    begin(out, tiny, overwrite=True)
    assert precious.read_text() == "precious"
    assert not (out / name).is_symlink()


@pytest.mark.parametrize("name", ["scores.json", "encoder/README.md", "nan/step_00000002/facts.json", "saved.json"])
def test_a_folder_under_a_files_name_is_refused_before_anything_is_removed(tmp_path, tiny, name):
    out = tmp_path / "run"
    whole(out, tiny)
    (out / name).unlink()
    (out / name).mkdir()
    (out / name / "thesis.tex").write_text("mine")
    before = contents(out)
    with pytest.raises(RunError, match="is a folder"):
        begin(out, tiny, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("which", [0, 5, 13])
def test_a_file_that_cannot_be_removed_leaves_the_old_run_whole(tmp_path, tiny, monkeypatch, which):
    out = tmp_path / "run"
    whole(out, tiny)
    before, rename, calls = contents(out), os.rename, []

    def failing(source, target):
        calls.append(source)
        if len(calls) == which + 1:
            raise PermissionError(1, "Operation not permitted", str(source))
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(replace.os, "rename", failing)
        with pytest.raises(RunError, match="It is as it was"):
            begin(out, tiny, overwrite=True)
    assert contents(out) == before
    assert begin(out, tiny) is State.FINISHED


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


def kill_at(monkeypatch: pytest.MonkeyPatch, out: Path, recipe: Recipe, at: int) -> bool:
    """Overwrite, and be killed at the `at`-th change of the folder; whether it came to that."""
    calls = []

    def counted(work):
        def counting(*given, **named):
            calls.append(given)
            if len(calls) == at:
                raise Killed
            return work(*given, **named)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(replace.os, "rename", counted(os.rename))
        patch.setattr(replace.Path, "unlink", counted(Path.unlink))
        patch.setattr(replace, "write_text", counted(replace.write_text))
        try:
            begin(out, recipe, overwrite=True)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("at", [1, 2, 9, 17, 18, 19, 20, 26, 35])
def test_a_kill_while_overwriting_leaves_the_old_run_or_an_empty_one(tmp_path, tiny, monkeypatch, at):
    out = tmp_path / "run"
    whole(out, tiny)
    before = contents(out)
    assert kill_at(monkeypatch, out, tiny, at)
    there = begin(out, tiny)
    if there is State.FINISHED:
        assert contents(out) == before
    else:
        assert there is State.NOT_STARTED
        assert set(contents(out)) == {"recipe.json", "init.json", "provenance.json", "saved.json"}


# What is not a run of ours


def test_a_folder_with_a_recipe_that_is_none_is_refused(tmp_path, tiny):
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
def test_a_file_of_the_users_under_a_name_of_ours_is_refused_beside_a_recipe_of_ours(tmp_path, tiny, name):
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / "recipe.json").write_text(tiny.to_json())
    (out / name).write_text("dear diary\n")
    before = contents(out)
    with pytest.raises(RunError, match=rf"{Path(name).name}.* would be replaced"):
        begin(out, tiny)
    assert contents(out) == before


def test_a_recipe_that_no_run_has_written_is_not_replaced_by_another(tmp_path, tiny):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "recipe.json").write_text(tiny.to_json())
    with pytest.raises(RunError, match=r"no run has written it.*\n.*optim\.epochs: 2 -> 3"):
        begin(out, tiny.but(None, {"optim.epochs": 3}))
    assert (out / "recipe.json").read_text() == tiny.to_json()
    assert begin(out, tiny) is State.NOT_STARTED


def test_a_run_that_failed_before_its_first_step_is_replaced_by_one_with_other_options(tmp_path, tiny):
    begin(tmp_path / "run", tiny)
    assert begin(tmp_path / "run", tiny.but(None, {"optim.epochs": 3})) is State.NOT_STARTED


# What was lost of a run


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
def test_a_run_whose_checkpoints_are_gone_does_not_start_anew(tmp_path, tiny, resume, left):
    out = tmp_path / "run"
    whole(out, tiny, finishes=False)
    shutil.rmtree(out / "checkpoints")
    if left != "nothing":
        (out / "checkpoints").mkdir()
    before = contents(out)
    with pytest.raises(RunError, match=r"logged 4 steps, and there is no checkpoint.*not mounted"):
        begin(out, tiny, resume=resume)
    assert contents(out) == before


def test_a_run_killed_before_its_first_checkpoint_goes_on_by_auto_and_not_by_must(tmp_path, tiny):
    whole(tmp_path / "run", tiny, saves=False, finishes=False)
    assert begin(tmp_path / "run", tiny) is State.NOT_SAVED
    with pytest.raises(RunError, match="--resume must expects"):
        begin(tmp_path / "run", tiny, resume="must")


def test_checkpoints_that_were_put_back_are_gone_on_from(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    (run.path / "finished.json").unlink()
    (run.path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="not mounted"):
        pretrain(pictures, tmp_path / "run", recipe=tiny)
    (tmp_path / "elsewhere").rename(run.path / "checkpoints")
    pretrain(pictures, tmp_path / "run", recipe=tiny, resume="must")
    assert (run.path / "finished.json").exists()


def test_more_epochs_for_a_finished_run_are_refused_with_what_can_be_done(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    with pytest.raises(RunError, match=r"optim\.epochs: 2 -> 3\n.*--init \S+run with another --out"):
        begin(tmp_path / "run", tiny.but(None, {"optim.epochs": 3}))


@pytest.mark.parametrize("name", [".tmp-old", ".tmp-old-train.log", "checkpoints/.tmp-old-MANIFEST.json"])
def test_a_folder_that_is_no_run_keeps_files_with_the_names_of_a_removal(tmp_path, tiny, name):
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(RunError, match="with other things in it"):
        begin(out, tiny)
    assert contents(out) == before
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_note_of_a_removal_that_no_run_has_written_is_refused(tmp_path, tiny, kind):
    out = tmp_path / "run"
    whole(out, tiny)
    note = out / ".tmp-old"
    {"folder": note.mkdir, "file": lambda: note.write_text("mine"), "link": lambda: note.symlink_to("x")}[kind]()
    before = contents(out)
    with pytest.raises(RunError, match="not what a run writes there"):
        begin(out, tiny)
    assert contents(out) == before


# Among the images


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("where", [".", "run", "inner/..", ".."])
def test_out_is_neither_the_folder_of_the_images_nor_in_it_nor_around_it(tmp_path, tiny, where, overwrite):
    pictures = make_pictures(tmp_path / "all" / "pictures", 40)
    (pictures / "inner").mkdir()
    (pictures / "recipe.json").write_text(tiny.to_json())
    shutil.copy(pictures / "0000.png", pictures / "curves.png")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="the folder of the images"):
        pretrain(pictures, pictures / where, recipe=tiny, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_out_is_not_the_folder_of_the_images_by_a_link(tmp_path, tiny):
    pictures = make_pictures(tmp_path / "pictures", 40)
    (tmp_path / "link").symlink_to(pictures)
    with pytest.raises(RunError, match="the folder of the images"):
        check_apart(tmp_path / "link" / "run", find_images(pictures))


def test_a_list_may_lie_beside_the_run_and_its_images_not_in_it(tmp_path, tiny):
    make_pictures(tmp_path / "pictures", 4)
    (tmp_path / "list.txt").write_text("pictures/0000.png\npictures/0001.png\n")
    images = find_images(tmp_path / "list.txt")
    check_apart(tmp_path / "run", images)
    check_apart(tmp_path / "pictures" / "run", images)
    with pytest.raises(RunError, match="has images of the run in it"):
        check_apart(tmp_path / "pictures", images)


@pytest.mark.parametrize("kind", ["to a folder", "to a file"])
def test_images_behind_links_into_out_are_found(tmp_path, tiny, kind):
    out = tmp_path / "run"
    whole(out, tiny)
    pictures = make_pictures(tmp_path / "pictures", 4)
    if kind == "to a file":
        shutil.copy(pictures / "0000.png", out / "curves.png")
        (pictures / "x.png").symlink_to(out / "curves.png")
    else:
        make_pictures(out / "more", 2)
        (pictures / "more").symlink_to(out / "more")
    with pytest.raises(RunError, match="is the file" if kind == "to a file" else "has images of the run in it"):
        check_apart(out, find_images(pictures), overwrite=True)


def test_what_overwriting_removes_is_not_what_the_run_starts_from(tmp_path, tiny):
    whole(tmp_path / "run", tiny)
    images = find_images(make_pictures(tmp_path / "pictures", 4))
    for init in (tmp_path / "run", tmp_path / "run" / "encoder", tmp_path / "run" / "encoder" / "model.safetensors"):
        with pytest.raises(RunError, match="which --overwrite removes"):
            check_apart(tmp_path / "run", images, init=init, overwrite=True)
    with pytest.raises(RunError, match=r"--eval-data .* lies in --out"):
        check_apart(tmp_path / "run", images, eval_data=tmp_path / "run" / "labelled")
    check_apart(tmp_path / "run", images, eval_data=tmp_path, init="timm/resnet18", overwrite=True)
