"""A run is stopped, resumed, replaced or refused, and ends with the same bits."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from sample_pictures import make_pictures

from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.train import checkpoint
from moco.train.after_step import Stopped
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError, RunFolder
from tests.train.helpers import Messages, StopAt, assert_same, final_state, losses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("step", [3, 7])
def test_a_run_stopped_mid_epoch_and_resumed_ends_with_the_same_bits(pictures, tiny, tmp_path, step, number):
    pretrain(pictures, tmp_path / "whole", recipe=tiny, workers=0)
    with pytest.raises(Stopped, match=f"after step {step} of 10"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, workers=1, reporter=StopAt(step, number))
    pretrain(pictures, tmp_path / "run", recipe=tiny, workers=2)
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "run"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


@pytest.mark.parametrize(("number", "interrupts"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_ctrl_c_is_a_keyboard_interrupt_as_a_notebook_expects_and_other_signals_are_not(
    pictures, tiny, tmp_path, number, interrupts
):
    with pytest.raises(Stopped) as stopped:
        pretrain(pictures, tmp_path / "run", recipe=tiny, reporter=StopAt(3, number))
    assert isinstance(stopped.value, KeyboardInterrupt) == interrupts


def test_a_run_that_skips_a_damaged_checkpoint_keeps_the_intact_one_it_resumes_from(pictures, tiny, tmp_path):
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, save_every=2, reporter=StopAt(4), keep=2)
    (tmp_path / "run" / "checkpoints" / "step_00000004.pt").write_bytes(b"")
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, save_every=100, reporter=StopAt(5), keep=2)
    there = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert there == ["step_00000002.pt", "step_00000005.pt"]


def test_signal_handlers_are_restored_after_a_run(pictures, tiny, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_is_not_changed(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    before = (run.path / "metrics.jsonl").read_bytes()
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_overwrite_starts_again(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, {"optim.epochs": 1}), overwrite=True)
    assert [step for step, _ in losses(run.path)] == [1, 2, 3, 4, 5]


def test_a_changed_recipe_on_resume_is_refused_with_the_changes(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    with pytest.raises(RunError, match=r"optim\.epochs: 2 -> 3"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, epochs=3)


def test_another_way_of_decoding_is_refused_on_resume(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    with pytest.raises(RunError, match=r"data\.decode: exact -> scaled"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"data.decode": "scaled"})


def test_changed_images_on_resume_are_refused_unless_accepted(pictures, tiny, tmp_path):
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, reporter=StopAt(3))
    (pictures / "0003.png").unlink()
    make_pictures(pictures / "more", 3)
    with pytest.raises(DataError, match=r"removed: 0003\.png"):
        pretrain(pictures, tmp_path / "run", recipe=tiny)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, accept_data_change=True)
    assert losses(run.path)[-1][0] == 10


def test_resume_never_refuses_a_run_and_must_refuses_none(pictures, tiny, tmp_path):
    with pytest.raises(RunError, match="there is none"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, resume="must")
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    with pytest.raises(RunError, match="has a run already"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, resume="never")


def test_two_processes_cannot_work_in_one_folder(pictures, tiny, tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process"):
            pretrain(pictures, tmp_path / "run", recipe=tiny)


@pytest.mark.parametrize(
    "lost", ["dictionary.keys", "key_encoder.module.backbone.conv1.weight", "encoder.backbone.bn1.running_mean"]
)
def test_the_comparison_detects_state_that_a_resume_loses(pictures, tiny, tmp_path, lost, monkeypatch):
    """A planted fault: a part of the state that does not come back makes the endings differ."""
    pretrain(pictures, tmp_path / "whole", recipe=tiny)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, reporter=StopAt(4))
    honest = checkpoint.read_checkpoint

    def forgetful(path):
        payload = honest(path)
        payload["state"]["model"][lost] = torch.rand_like(payload["state"]["model"][lost])
        return payload

    monkeypatch.setattr(checkpoint, "read_checkpoint", forgetful)
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "run"))


def test_an_error_before_training_with_overwrite_leaves_the_old_run(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError, match=r"nothing\.pth"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, overwrite=True, init="nothing.pth")
    with pytest.raises(DataError, match="does not exist"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, overwrite=True, eval_data="nowhere")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_the_automatic_recipe_resumes_with_other_images_if_accepted(tmp_path):
    pictures = make_pictures(tmp_path / "pictures", 40)
    options = {"epochs": 2, "settings": {"encoder.width": 0.125}}
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", reporter=StopAt(3), **options)
    make_pictures(pictures / "more", 30)
    with pytest.raises(DataError, match="30 images were added"):
        pretrain(pictures, tmp_path / "run", **options)
    run = pretrain(pictures, tmp_path / "run", accept_data_change=True, **options)
    assert RunFolder(run.path).finished


def test_the_initial_weights_are_recorded_and_cannot_be_changed_on_resume(pictures, tiny, tmp_path):
    first = pretrain(pictures, tmp_path / "first", recipe=tiny)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, init=first.path, reporter=StopAt(3))
    assert json.loads((tmp_path / "run" / "init.json").read_text())["weights"] == str(first.path)
    with pytest.raises(RunError, match="leave --init out"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, init="other.pth")
    pretrain(pictures, tmp_path / "run", recipe=tiny)


def test_a_resumed_run_keeps_its_number_of_threads(pictures, tiny, tmp_path):
    recipe = tiny.but(None, {"compute.threads": None})
    torch.set_num_threads(2)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=recipe, reporter=StopAt(3))
    torch.set_num_threads(1)
    assert pretrain(pictures, tmp_path / "run", recipe=recipe).recipe.compute.threads == 2


def test_scores_are_logged_once_although_a_run_is_killed_before_its_first_step(pictures, tiny, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(tiny.to_json())
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 0, "epoch": 0.0, "knn": 30.0}\n')
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, eval_data=labelled)
    assert [record["step"] for record in run.metrics() if "knn" in record] == [0, *range(5, 11, 5)]


def rewrite(file, factor: float) -> None:
    """Other weights of the same network under the same name."""
    tensors = {name: x * factor if x.is_floating_point() else x for name, x in load_file(file).items()}
    save_file(tensors, file)


@pytest.fixture
def weights(pictures, tiny, tmp_path):
    """A file with the state dict of a network that `tiny` can start from."""
    first = pretrain(pictures, tmp_path / "first", recipe=tiny)
    return shutil.copy(first.path / "encoder" / "model.safetensors", tmp_path / "weights.safetensors")


@pytest.mark.parametrize("given", [True, False])
def test_other_weights_under_the_name_of_init_are_refused_before_the_first_checkpoint(
    pictures, tiny, tmp_path, weights, given
):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        pretrain(pictures, out, recipe=tiny, init=weights, reporter=StopAt(3))
    for file in (out / "checkpoints").iterdir():
        file.unlink()
    (out / "saved.json").write_text('{"first_step": null}')  # as after a kill before the first checkpoint
    rewrite(weights, 2.0)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"started from other weights than .*put the former weights back"):
        pretrain(pictures, out, recipe=tiny, init=weights if given else None)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_weights_under_the_name_of_init_are_refused_on_resume_if_they_are_named(
    pictures, tiny, tmp_path, weights
):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        pretrain(pictures, out, recipe=tiny, init=weights, reporter=StopAt(3))
    with pytest.raises(Stopped):
        pretrain(pictures, out, recipe=tiny, init=weights, reporter=StopAt(5))
    rewrite(weights, 2.0)
    with pytest.raises(RunError, match=r"started from other weights than .*leave --init out to continue"):
        pretrain(pictures, out, recipe=tiny, init=weights)
    weights.write_bytes(b"no weights")
    with pytest.raises(RunError, match="cannot be read any more: leave --init out"):
        pretrain(pictures, out, recipe=tiny, init=weights)
    weights.unlink()  # a run with a checkpoint does not need them
    pretrain(pictures, out, recipe=tiny, init=weights)


def test_a_run_of_an_older_version_has_no_sha256_of_its_initial_weights(pictures, tiny, tmp_path, weights):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        pretrain(pictures, out, recipe=tiny, init=weights, reporter=StopAt(3))
    (out / "init.json").write_text(json.dumps({"weights": str(weights), "read": []}))
    rewrite(weights, 2.0)
    pretrain(pictures, out, recipe=tiny, init=weights)


def test_a_finished_run_says_so_when_it_is_given_other_images(tmp_path, pictures, tiny):
    options = {"recipe": tiny, "workers": 0, "device": "cpu"}
    pretrain(pictures, tmp_path / "run", **options)
    for folder, other in ((pictures, False), (make_pictures(tmp_path / "other", 52, seed=9), True)):
        heard = Messages()
        pretrain(folder, tmp_path / "run", reporter=heard, **options)
        said = " ".join(heard.lines)
        assert "finished already" in said
        assert ("not those that it was trained on" in said) is other
