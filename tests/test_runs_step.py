"""The step of a run that has a checkpoint and no record."""

from moco.runs import format_runs_table, read_last_values
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder


def test_a_run_that_was_stopped_before_its_first_record_shows_the_step_of_its_checkpoint(tmp_path, pictures, tiny):
    run = RunFolder(pretrain(pictures, tmp_path / "run", recipe=tiny, workers=0, device="cpu", save_every=2).path)
    for name in ("finished.json", "metrics.jsonl"):
        (run.path / name).unlink()
    found = read_last_values(run)
    assert (found["state"], found["step"], found["loss"]) == ("can be resumed", 10, None)


def test_a_log_with_values_that_are_no_numbers_is_listed_without_them(tmp_path, tiny):
    (tmp_path / "recipe.json").write_text(tiny.to_json())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0.5, "loss": "x", "pretext_top1": [], "knn": 50.0}\n')
    assert "50.0 %" in format_runs_table([read_last_values(RunFolder(tmp_path))])
