"""A run whose folder is removed or renamed while it trains, and whose name another folder has then."""

import shutil
from pathlib import Path

import pytest
from sample_pictures import make_pictures

import moco
from moco.train.lock_folder import RunError, lock_folder
from moco.train.run_folder import RunFolder

SMALL = {"data.size": 16, "data.eval_resize": 16, "method.size": 16, "optim.batch_size": 16, "method.bn_groups": 2}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def train(images: Path, out: Path, reporter=None, **more):
    options = {"recipe": "demo", "epochs": 2, "device": "cpu", "save_every": 1, "report": False, "compare": False}
    return moco.pretrain(images, out, settings=SMALL, reporter=reporter, **(options | more))


@pytest.mark.parametrize("every", [1, 100])
def test_it_ends_and_changes_nothing_in_the_other_folder(tmp_path, monkeypatch, every: int):
    images = make_pictures(tmp_path / "images", 48)
    train(images, tmp_path / "other")
    import moco.train.after_step as after_step

    call, before = after_step.AfterStep.__call__, {}

    def replace(self, state, *given, **named):
        if state.clock.step == 2:
            self.saver.collect(wait=True)  # a checkpoint that is being written is not stopped
            (tmp_path / "run").rename(tmp_path / "away")
            shutil.copytree(tmp_path / "other", tmp_path / "run")
            before.update(contents(tmp_path / "run"))
        return call(self, state, *given, **named)

    monkeypatch.setattr(after_step.AfterStep, "__call__", replace)
    with pytest.raises(RunError, match=r"another folder has its name now"):
        train(images, tmp_path / "run", save_every=every)
    assert before
    assert contents(tmp_path / "run") == before


def test_a_folder_is_the_same_while_it_is_locked_and_free_afterwards(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with lock_folder(run.path):
        run.log({"step": 1})
        run.path.rename(tmp_path / "away")
        with pytest.raises(OSError, match="run"):
            run.log({"step": 2})
        run.path.mkdir()
        with pytest.raises(RunError, match="was removed or renamed"):
            run.log({"step": 2})
    run.log({"step": 3})
    assert run.metrics_file.read_text() == '{"step": 3}\n'
