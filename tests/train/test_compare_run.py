"""The comparison at the end of a run."""

import json
from pathlib import Path

import pytest
import torch
from sample_pictures import make_pictures
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.comparison.measures import KNN
from moco.recipe import Recipe
from moco.train import compare_run
from moco.train.compare_run import NAME, load_start, seconds_of
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError, RunFolder
from moco.train.stop_on_signals import Stopped
from tests.train.helpers import StopAt, assert_same, final_state


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs are compared too, and only with what a test gives."""
    monkeypatch.setattr(compare_run, "SHORTEST", 0.0)
    monkeypatch.setattr(compare_run, "MOST", 600.0)  # a busy machine must not change what a test sees
    monkeypatch.setattr(compare_run, "LEAST", 600.0)
    monkeypatch.setattr(compare_run, "cheapest_on_machine", lambda network, other_than: None)


@pytest.fixture(scope="module")
def in_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures, 60 of which are held out."""
    return make_pictures(tmp_path_factory.mktemp("in_classes"), 300, classes=4)


@pytest.fixture
def short(tiny: Recipe) -> Recipe:
    """5 steps of 60 pictures."""
    changes = {"optim.batch_size": 60, "optim.epochs": 1, "method.size": 60, "method.bn_groups": 2}
    return tiny.but(None, changes)


def compared(run: Path) -> dict:
    return json.loads((run / NAME).read_text())


def test_class_folders_are_labels_and_the_sentence_is_in_the_log(in_classes, short, tmp_path):
    run = pretrain(in_classes, tmp_path / "run", recipe=short)
    content = compared(run.path)
    assert list(content["scores"]) == ["this run", "random", "pixels"]
    assert (content["images"], content["labels"]) == (60, "the run's own images, their 4 folders as classes")
    sentence = content["verdict"]["sentence"]
    assert f"Is it worth it? {sentence} (60 test images" in (run.path / "train.log").read_text()
    assert f"is it worth it? {sentence}" in CliRunner().invoke(app, ["runs", "show", str(run.path)]).stdout


def test_its_scores_are_those_of_moco_compare_on_the_same_images(in_classes, short, tmp_path):
    run = pretrain(in_classes, tmp_path / "run", recipe=short)
    theirs = moco.compare(run.path, in_classes, baselines=["pixels"]).scores
    content = compared(run.path)
    assert content["scores"]["pixels"][KNN] == pytest.approx(theirs["pixels"][KNN])
    assert content["scores"]["this run"][KNN] == pytest.approx(theirs["run"][KNN], abs=2)  # kernels by batch size


def test_eval_data_is_preferred(pictures, in_classes, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, eval_data=in_classes, eval_every=2)
    assert compared(run.path)["labels"] == "labels of --eval-data"


def test_training_and_checkpoints_have_the_same_bits_without_it(in_classes, short, tmp_path):
    runs = [pretrain(in_classes, tmp_path / f"{on}", recipe=short, compare=on).path for on in (True, False)]
    assert_same(*(final_state(run) for run in runs))
    files = [{file.name for file in run.rglob("*") if "step" not in file.name} for run in runs]
    assert files[0] - files[1] == {NAME}
    assert files[1] <= files[0]


def test_without_labels_the_start_is_compared_with_by_views_and_it_is_called_a_hint(tiny, tmp_path):
    data = make_pictures(tmp_path / "flat", 128)
    start = pretrain(data, tmp_path / "start", recipe=tiny, compare=False)
    run = pretrain(data, tmp_path / "run", recipe=tiny, init=start.path)
    content = compared(run.path)
    assert (list(content["scores"]), content["used_labels"]) == (["this run", "random", "pixels", "init"], False)
    assert "Without labels, which is a hint and says nothing about accuracy: " in (run.path / "train.log").read_text()


def test_a_trial_and_a_run_with_nothing_to_compare_with_are_not(
    pictures, in_classes, short, tiny, tmp_path, monkeypatch
):
    assert not (pretrain(pictures, tmp_path / "flat", recipe=tiny).path / NAME).exists()
    monkeypatch.setattr(compare_run, "SHORTEST", 60.0)
    assert not (pretrain(in_classes, tmp_path / "trial", recipe=short).path / NAME).exists()


def test_too_few_test_images_give_a_reason_and_the_command(tiny, tmp_path):
    data = make_pictures(tmp_path / "few", 40, classes=2)
    run = pretrain(data, tmp_path / "run", recipe=tiny)
    assert not (run.path / NAME).exists()
    log = (run.path / "train.log").read_text()
    assert "not compared with baselines: there are 8 labelled images to test on, and 50 are needed" in log
    assert f"moco compare {run.path} LABELLED_FOLDER" in log


def test_an_exception_does_not_fail_the_run(in_classes, short, tmp_path, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(compare_run, "compare_shortly", fail)
    run = pretrain(in_classes, tmp_path / "run", recipe=short)
    assert run.encoder().encoder.num_features
    assert "caution: not compared with baselines: MemoryError: no memory" in (run.path / "train.log").read_text()


def test_a_file_of_the_user_stays(in_classes, short, tmp_path, monkeypatch):
    finish = compare_run.compare_shortly

    def write_before(*args, **options):
        (tmp_path / "run" / NAME).write_text("mine")
        return finish(*args, **options)

    monkeypatch.setattr(compare_run, "compare_shortly", write_before)
    run = pretrain(in_classes, tmp_path / "run", recipe=short)
    assert (run.path / NAME).read_text() == "mine"
    assert "compare.json was not written: a file of that name exists" in (run.path / "train.log").read_text()


def test_the_start_is_a_baseline_of_a_resumed_run_too(in_classes, short, tmp_path):
    start = pretrain(in_classes, tmp_path / "start", recipe=short, compare=False)

    with pytest.raises(Stopped):
        pretrain(in_classes, tmp_path / "run", recipe=short, init=start.path, save_every=1, reporter=StopAt(2))
    run = pretrain(in_classes, tmp_path / "run", recipe=short)
    content = compared(run.path)
    assert list(content["scores"]) == ["this run", "random", "pixels", "init"]
    own = moco.compare(start.path, in_classes, baselines=["pixels"]).scores["start"][KNN]
    assert content["scores"]["init"][KNN] == pytest.approx(own, abs=2)


def test_a_start_that_has_changed_is_not_compared_with(in_classes, short, tmp_path):
    start = pretrain(in_classes, tmp_path / "start", recipe=short, compare=False)
    run = pretrain(in_classes, tmp_path / "run", recipe=short, init=start.path, compare=False)
    pretrain(in_classes, tmp_path / "start", recipe=short, seed=1, overwrite=True, compare=False)
    with pytest.raises(RunError, match="started from other weights"):
        load_start(RunFolder(run.path), str(start.path), run.encoder().encoder, torch.device("cpu"))


def test_the_option_switches_it_off_and_overwrite_removes_the_file(in_classes, short, tmp_path):
    (tmp_path / "recipe.json").write_text(short.to_json())
    command = ["pretrain", str(in_classes), "--out", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "run" / NAME).exists()
    assert CliRunner().invoke(app, [*command, "--no-compare", "--overwrite"]).exit_code == 0
    assert not (tmp_path / "run" / NAME).exists()


def test_the_time_of_a_resumed_run_is_that_of_all_processes():
    records = [{"seconds": 10.0}, {"seconds": 25.0, "loss": 1}, {"step": 3}, {"seconds": 4.0}, {"seconds": 9.0}]
    assert seconds_of(records) == 25 + 9
