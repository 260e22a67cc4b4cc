"""The step of a run that has a checkpoint and no record."""

from moco.runs import describe
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder


def test_a_run_that_was_stopped_before_its_first_record_shows_the_step_of_its_checkpoint(tmp_path, pictures, tiny):
    run = RunFolder(pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", save_every=2).path)
    for name in ("finished.json", "metrics.jsonl"):
        (run.path / name).unlink()
    found = describe(run)
    assert (found["state"], found["step"], found["loss"]) == ("can be continued", 10, None)
