"""From a folder to a run folder, and what can be in the way."""

import csv
import dataclasses
import json
import math
import os
import signal
import typing

import pytest
import torch
from making import make_pictures
from torch import nn
from torchvision.models import resnet18

import moco
from moco import recipes
from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.schedule import Cosine
from moco.train import checkpoint
from moco.train.after_step import Diverged, Stopped
from moco.train.console import Silent
from moco.train.options import RunKeywords, RunOptions
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError, RunFolder


class StopAt(Silent):
    """Sends this process a signal when the run shows the given step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def live(self, *parts: str) -> None:
        if f"step {self.step}" in parts:
            os.kill(os.getpid(), self.number)


def final_state(out) -> dict:
    return checkpoint.read_checkpoint(checkpoint.newest_intact(out / "checkpoints"))["state"]


def assert_same(a, b, where="state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{where}.{i}")
    else:
        assert a == b, where


def losses(out) -> list:
    return [(record["step"], record["loss"]) for record in RunFolder(out).metrics() if "loss" in record]


def test_a_run_leaves_what_the_documents_promise(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    there = {path.name for path in run.path.iterdir()}
    assert {"recipe.json", "provenance.json", "metrics.jsonl", "checkpoints", "encoder", "finished.json"} <= there
    assert {path.name for path in (run.path / "encoder").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert [step for step, _ in losses(run.path)] == list(range(1, 11))
    assert RunFolder(run.path).recipe() == tiny
    facts = json.loads((run.path / "provenance.json").read_text())[0]
    assert facts["images"] == 40
    assert facts["versions"]["torch"] == torch.__version__


def test_the_encoder_that_is_saved_is_the_query_encoder(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    state = final_state(run.path)["model"]
    for name, tensor in moco.load(run.path).encoder.backbone.state_dict().items():
        assert torch.equal(tensor, state[f"encoder.backbone.{name}"])


def test_training_changes_the_query_encoder_and_the_key_encoder_and_fills_the_queue(pictures, tiny, tmp_path):
    state = final_state(pretrain(pictures, tmp_path / "run", recipe=tiny).path)["model"]
    assert (state["dictionary.born"] > 0).all()  # 10 steps of 8 keys went through a queue of 20
    weight = "backbone.conv1.weight"
    assert not torch.equal(state[f"encoder.{weight}"], state[f"key_encoder.module.{weight}"])


def test_a_broken_file_is_set_aside_by_name_and_the_run_ends_well(pictures, tiny, tmp_path):
    (pictures / "0007.png").write_bytes(b"not a picture")
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    rows = list(csv.reader((run.path / "bad_images.csv").read_text().splitlines()))
    assert rows[0] == ["name", "reason"]
    assert [name for name, _ in rows[1:]] == ["0007.png"]


def test_too_many_broken_files_stop_the_run(pictures, tiny, tmp_path):
    for i in range(5):
        (pictures / f"000{i}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="allow more with --max-bad"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, max_bad=3)


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


def test_a_run_that_passed_over_a_damaged_checkpoint_keeps_the_whole_one_it_went_on_from(pictures, tiny, tmp_path):
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, save_every=2, reporter=StopAt(4), keep=2)
    (tmp_path / "run" / "checkpoints" / "step_00000004.pt").write_bytes(b"")
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, save_every=100, reporter=StopAt(5), keep=2)
    there = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert there == ["step_00000002.pt", "step_00000005.pt"]


def test_signal_handlers_are_put_back_after_a_run(pictures, tiny, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_is_left_as_it_is(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    before = (run.path / "metrics.jsonl").read_bytes()
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_overwrite_starts_anew(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, {"optim.epochs": 1}), overwrite=True)
    assert [step for step, _ in losses(run.path)] == [1, 2, 3, 4, 5]


def test_scores_during_training_do_not_change_it(pictures, tiny, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    pretrain(pictures, tmp_path / "plain", recipe=tiny)
    run = pretrain(pictures, tmp_path / "scored", recipe=tiny, eval_data=labelled, eval_every=1)
    log = (run.path / "train.log").read_text()
    assert "kNN score: 32 labelled images, 8 test images; one in 5 of each class" in log
    assert_same(final_state(tmp_path / "plain"), final_state(tmp_path / "scored"))
    scores = [(record["step"], record["knn"]) for record in run.metrics() if "knn" in record]
    assert [step for step, _ in scores] == [0, 5, 10]
    assert all(0 <= score <= 100 for _, score in scores)


def test_another_seed_gives_another_run(pictures, tiny, tmp_path):
    runs = [pretrain(pictures, tmp_path / str(seed), recipe=tiny, seed=seed) for seed in (0, 1)]
    assert losses(runs[0].path) != losses(runs[1].path)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(pictures, tiny, tmp_path):
    with pytest.raises(Diverged, match="learning rate"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"optim.lr": 1e30}, save_every=1)
    path = checkpoint.newest_intact(tmp_path / "run" / "checkpoints")
    if path is not None:
        assert all(
            torch.isfinite(x).all()
            for x in checkpoint.read_checkpoint(path)["state"]["model"].values()
            if x.is_floating_point()
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_runs_on_a_cpu_and_keeps_weights_and_queue_in_float32(pictures, tiny, tmp_path, precision):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"compute.precision": precision})
    state = final_state(run.path)["model"]
    assert all(x.dtype == torch.float32 for x in state.values() if x.is_floating_point())
    assert all(torch.isfinite(torch.tensor(loss)) for _, loss in losses(run.path))


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])  # on a CPU torch leaves them out
@pytest.mark.usefixtures("without_shape_checks")
def test_compiled_encoders_begin_with_the_same_losses(pictures, tiny, tmp_path, graphs):
    """Sums in another order: the first losses agree to rounding, and the differences grow from step to step."""
    plain = pretrain(pictures, tmp_path / "plain", recipe=tiny)
    settings = {"compute.compile": True, "compute.cuda_graphs": graphs}
    compiled = pretrain(pictures, tmp_path / "compiled", recipe=tiny, settings=settings)
    for (_, a), (_, b) in list(zip(losses(plain.path), losses(compiled.path), strict=True))[:3]:
        assert a == pytest.approx(b, rel=1e-4)


def test_init_starts_both_encoders_from_the_weights_of_a_file(pictures, tmp_path, tiny):
    network = resnet18()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    recipe = tiny
    said = []

    class Listen(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    still = {"optim.lr": 0.0, "optim.epochs": 1, "optim.weight_decay": 0.0}
    run = pretrain(
        pictures,
        tmp_path / "run",
        recipe=recipe.but(None, still),
        model="torchvision/resnet18",
        init=tmp_path / "weights.pth",
        reporter=Listen(),
    )
    state = final_state(run.path)["model"]
    for name, parameter in network.named_parameters():
        if not name.startswith("fc."):
            assert torch.equal(state[f"encoder.backbone.{name}"], parameter)
            assert torch.equal(state[f"key_encoder.module.backbone.{name}"], parameter)
    assert any("weights.pth" in line for line in said)


def test_a_module_and_a_dataset_of_ones_own_are_taken(tmp_path, tiny):
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.randint(
                0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(index)
            ), 0

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    recipe = tiny
    run = pretrain(Noise(), tmp_path / "run", recipe=recipe, model=model)
    assert len(losses(run.path)) == 10


def test_a_dry_run_makes_nothing(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny, dry_run=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim.batch_size": 64, "method.size": 64}, "there are only 40"),
        ({"method.size": 36}, "K \\+ batch <= images"),
    ],
)
def test_sizes_that_do_not_fit_the_data_are_refused_before_anything_is_made(pictures, tiny, tmp_path, change, said):
    with pytest.raises(RecipeError, match=said):
        pretrain(pictures, tmp_path / "run", recipe=tiny, settings=change)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        pretrain(tmp_path / "empty", tmp_path / "run")


def test_a_folder_with_other_things_in_it_is_not_written_to(pictures, tiny, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="other things"):
        pretrain(pictures, tmp_path / "home", recipe=tiny)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_a_changed_recipe_on_resume_is_refused_with_what_changed(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    with pytest.raises(RunError, match=r"optim\.epochs: 2 -> 3"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, epochs=3)


def test_changed_images_on_resume_are_refused_unless_accepted(pictures, tiny, tmp_path):
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, reporter=StopAt(3))
    (pictures / "0003.png").unlink()
    make_pictures(pictures / "more", 3)
    with pytest.raises(DataError, match=r"removed: 0003\.png"):
        pretrain(pictures, tmp_path / "run", recipe=tiny)
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, accept_data_change=True)
    assert losses(run.path)[-1][0] == 10


def test_never_and_must_say_what_is_to_be_there(pictures, tiny, tmp_path):
    with pytest.raises(RunError, match="there is none"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, resume="must")
    pretrain(pictures, tmp_path / "run", recipe=tiny)
    with pytest.raises(RunError, match="holds a run already"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, resume="never")


def test_two_processes_cannot_work_in_one_folder(pictures, tiny, tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process"):
            pretrain(pictures, tmp_path / "run", recipe=tiny)


def test_an_unknown_device_is_refused(pictures, tiny, tmp_path):
    with pytest.raises(RecipeError, match="--device expects"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, device="cuda:77")


@pytest.mark.parametrize(
    "lost", ["dictionary.keys", "key_encoder.module.backbone.conv1.weight", "encoder.backbone.bn1.running_mean"]
)
def test_the_comparison_notices_what_a_resume_would_lose(pictures, tiny, tmp_path, lost, monkeypatch):
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


def test_overwriting_with_something_wrong_leaves_the_old_run(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError, match=r"nothing\.pth"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, overwrite=True, init="nothing.pth")
    with pytest.raises(DataError, match="does not exist"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, overwrite=True, eval_data="nowhere")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_the_automatic_recipe_goes_on_with_other_images_when_that_is_accepted(tmp_path):
    pictures = make_pictures(tmp_path / "pictures", 40)
    options = {"epochs": 2, "settings": {"encoder.width": 0.125}}
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", reporter=StopAt(3), **options)
    make_pictures(pictures / "more", 30)
    with pytest.raises(DataError, match="30 images were added"):
        pretrain(pictures, tmp_path / "run", **options)
    run = pretrain(pictures, tmp_path / "run", accept_data_change=True, **options)
    assert RunFolder(run.path).finished


def test_what_a_run_began_from_is_remembered_and_cannot_be_changed(pictures, tiny, tmp_path):
    first = pretrain(pictures, tmp_path / "first", recipe=tiny)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=tiny, init=first.path, reporter=StopAt(3))
    assert json.loads((tmp_path / "run" / "init.json").read_text())["weights"] == str(first.path)
    with pytest.raises(RunError, match="leave --init out"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, init="other.pth")
    pretrain(pictures, tmp_path / "run", recipe=tiny)


def test_a_run_keeps_the_number_of_threads_that_it_began_with(pictures, tiny, tmp_path):
    recipe = tiny.but(None, {"compute.threads": None})
    torch.set_num_threads(2)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", recipe=recipe, reporter=StopAt(3))
    torch.set_num_threads(1)
    assert pretrain(pictures, tmp_path / "run", recipe=recipe).recipe.compute.threads == 2


def test_scores_are_logged_once_though_a_run_is_killed_before_its_first_step(pictures, tiny, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(tiny.to_json())
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 0, "epoch": 0.0, "knn": 30.0}\n')
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, eval_data=labelled)
    assert [record["step"] for record in run.metrics() if "knn" in record] == [0, *range(5, 11, 5)]


def test_files_that_were_skipped_are_told_in_the_plan_the_log_and_the_provenance(pictures, tiny, tmp_path):
    for i in range(3):
        (pictures / f"{i}.heic").touch()
    (pictures / ".hidden.png").touch()
    boxes = []

    class Listens(Silent):
        def box(self, title: str, rows: list[tuple[str, str]]) -> None:
            boxes.extend(rows)

    run = pretrain(pictures, tmp_path / "run", recipe=tiny, epochs=1, reporter=Listens())
    skipped = "3 x .heic file, 1 x hidden (convert HEIC to JPEG or PNG, with pillow-heif or heif-convert)"
    assert ("skipped", skipped) in boxes
    assert f"plan: skipped: {skipped}" in (run.path / "train.log").read_text()
    assert json.loads((run.path / "provenance.json").read_text())[0]["skipped"] == {".heic file": 3, "hidden": 1}


def test_the_log_says_what_the_console_said(pictures, tiny, tmp_path):
    text = (pretrain(pictures, tmp_path / "run", recipe=tiny).path / "train.log").read_text()
    assert "plan: images: 40" in text
    said = " ".join(text.split())
    assert "The queue starts with random keys" in said
    assert "In 3 steps keys of images replace them" in said  # 20 keys, 8 a step
    assert "done: encoder:" in text


@pytest.mark.parametrize("epochs", [1, 0.5])
def test_a_run_too_short_for_its_schedule_to_learn_anything_is_refused(pictures, tiny, tmp_path, epochs):
    """The notebook's schedule counts epochs from 1, and the last one has learning rate 0."""
    recipe = tiny.but(None, {"optim.lr": recipes.named("moco_cifar").optim.lr})
    with pytest.raises(RecipeError, match=r"learning rate is 0 at each of the .* steps.*--epochs 2"):
        pretrain(pictures, tmp_path / "run", recipe=recipe, settings={"optim.epochs": epochs}, dry_run=True)
    assert not (tmp_path / "run").exists()
    pretrain(pictures, tmp_path / "run", recipe=recipe, epochs=2, dry_run=True)


def test_a_single_step_of_a_warm_up_is_refused_too(pictures, tiny, tmp_path):
    changes = {"optim.epochs": 0.2, "optim.lr": Cosine(0.1, warmup=1)}
    with pytest.raises(RecipeError, match="0 at each of the 1 steps"):
        pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, changes))


def test_a_learning_rate_that_is_set_to_zero_is_told_in_the_plan(pictures, tiny, tmp_path):
    rows: list[tuple[str, str]] = []

    class Heard(Silent):
        def box(self, title, lines):
            rows.extend(lines)

    pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"optim.lr": 0.0}, dry_run=True, reporter=Heard())
    assert ("caution", "the learning rate is 0 throughout (optim.lr): the encoder learns nothing") in rows


def test_a_module_with_all_parameters_frozen_is_refused(pictures, tiny, tmp_path):
    frozen = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).requires_grad_(False)
    with pytest.raises(RecipeError, match="no parameter of your module takes a gradient"):
        pretrain(pictures, tmp_path / "run", recipe=tiny, model=frozen)


def test_the_options_of_a_run_are_the_keywords_of_pretrain_with_the_same_types():
    fields = typing.get_type_hints(RunOptions)
    assert fields == typing.get_type_hints(RunKeywords)
    assert list(fields) == [field.name for field in dataclasses.fields(RunOptions)]


def test_an_option_that_there_is_not_is_an_error_that_names_it(tmp_path):
    with pytest.raises(TypeError, match="wrokers"):
        pretrain([], tmp_path, wrokers=2)


@pytest.mark.parametrize(
    "option",
    [
        {"resume": "Never"}, {"resume": False}, {"overwrite": "no"}, {"dry_run": 1}, {"keep": 0}, {"keep": -1},
        {"keep": None}, {"save_every": 0}, {"keep_every": 0}, {"eval_every": 0}, {"save_every": 2.5}, {"patience": -1},
        {"patience": math.nan},
    ],
)  # fmt: skip
@pytest.mark.usefixtures("without_shape_checks")
def test_an_option_with_a_value_that_it_cannot_have_is_refused_before_anything_is_made(tmp_path, option):
    with pytest.raises(RecipeError, match=f"{next(iter(option))} expects"):
        pretrain([], tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()
