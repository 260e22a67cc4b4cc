"""`moco transfer`: several initial weights with the same settings, one table."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from moco.cli import app
from moco.encoders import build_headless
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.train.options import RunOptions
from moco.train.reporters import Silent
from moco.transfer.comparison import TransferComparison, TrialScores
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.estimate import iterations_left, measure_tuning
from moco.transfer.task_interface import Baseline
from moco.transfer.task_registry import TASKS
from moco.transfer.transfer import load_starts, read_data, transfer
from moco.weights.encoder_folder import save_encoder
from tests.transfer.draw_scenes import make_scenes
from tests.transfer.small_settings import DETECT as SETTINGS

SPEC = EncoderSpec(name="resnet18", width=0.125)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"), 10, seed=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An encoder folder, as pre-training writes it."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(7)
    save_encoder(folder, build_headless(SPEC), recipe=Recipe(name="r", encoder=SPEC), facts={})
    return folder


def row(name: str, values: list[float], **settings) -> TrialScores:
    recipe = detection_recipe("detect", "fpn", "24k").but(None, {"init": name, **settings})
    return TrialScores(name, recipe, [{"AP": value} for value in values])


def test_the_table_has_mean_spread_and_gap():
    table = TransferComparison(
        [row("supervised", [50.0, 52.0]), row("moco", [54.0, 56.0], seed=3)], "supervised", ("AP",)
    )
    assert table.gap(table.rows[1], "AP") == 4
    assert table.rows[1].spread("AP") == pytest.approx(2**0.5)
    assert "55.0 ± 1.4 (+4.0)" in str(table)


def test_a_gap_of_unequal_settings_is_refused():
    table = TransferComparison(
        [row("supervised", [50.0]), row("moco", [54.0], **{"optim.lr": 0.1})], "supervised", ("AP",)
    )
    assert table.gap(table.rows[1], "AP") is None
    assert "(+4.0)" not in str(table)
    assert "no gap for moco: its settings differ (optim.lr: 0.02 -> 0.1)" in str(table)


def test_bn_may_differ_between_rows_and_is_named():
    """The paper's Table 6 compares MoCo with tuned BN to a supervised baseline with frozen BN on LVIS."""
    rows = [row("supervised", [50.0], bn="frozen"), row("moco", [54.0])]
    table = TransferComparison(rows, "supervised", ("AP",))
    assert table.gap(table.rows[1], "AP") == 4
    assert "BN differs: supervised frozen, moco sync" in str(table)
    assert "BN differs" not in str(TransferComparison([row("a", [1.0]), row("b", [2.0])], "a", ("AP",)))


def test_bn_is_chosen_for_all_weights_and_for_some(scenes, tmp_path):
    init, options = {"a": "random", "b": "random"}, {"schedule": "1", "settings": SETTINGS, "device": "cpu"}
    table = transfer(
        "detect", scenes, tmp_path, init=init, model="resnet18", bn="tuned", bn_of={"b": "frozen"}, **options
    )
    assert [one.recipe.bn for one in table.rows] == ["tuned", "frozen"]
    tensors = load_file(tmp_path / "b" / "trial_0" / "model" / "model.safetensors")
    assert not any(name.endswith("num_batches_tracked") for name in tensors)  # no BN in the new layers either


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["x=frozen"], "--bn x=frozen: there is no --init x"),
        (["froze"], "--bn expects tuned, sync, frozen or NAME= and one of these, got 'froze'"),
        (["sync", "tuned"], "--bn tuned: BN of all weights is given twice"),
        (["a=sync", "a=tuned"], "--bn a=tuned: BN of a is given twice"),
    ],
)
def test_bn_that_is_not_clear_is_refused(scenes, tmp_path, given, message):
    arguments = ["transfer", "detect", "--data", str(scenes), "--out", str(tmp_path / "out"), "--model", "resnet18"]
    choices = [part for one in given for part in ("--bn", one)]
    result = CliRunner().invoke(app, [*arguments, "--init", "a=random", *choices])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_each_row_starts_from_its_own_weights_and_the_table_resumes(scenes, weights, tmp_path):
    init = {"random": "random", "moco": str(weights)}
    started = {}

    def note(encoder, job, *rest):
        started[job.run.path.parent.name] = encoder.backbone.conv1.weight.detach().clone()
        return original(encoder, job, *rest)

    from moco.transfer import transfer as module

    original = module.fine_tune
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fine_tune", note)
        table = transfer("detect", scenes, tmp_path, init=init, schedule="2", settings=SETTINGS, device="cpu")
    assert torch.equal(started["moco"], load_file(weights / "model.safetensors")["conv1.weight"])
    assert not torch.equal(started["random"], started["moco"])
    assert [one.name for one in table.rows] == ["random", "moco"]
    again = transfer("detect", scenes, tmp_path, init=init, schedule="2", settings=SETTINGS, device="cpu")
    assert again.to_dict() == table.to_dict() == json.loads((tmp_path / "table.json").read_text())


def test_initial_weights_that_cannot_be_compared_are_refused(scenes, tmp_path):
    with pytest.raises(RecipeError, match="name the network with --model"):
        transfer("detect", scenes, tmp_path, init={"random": "random"})
    with pytest.raises(RecipeError, match="--versus expects one of random, got 'supervised'"):
        transfer("detect", scenes, tmp_path, init={"random": "random"}, model="resnet18", versus="supervised")
    with pytest.raises(RecipeError, match="the annotations have no keypoints"):
        transfer("keypoints", scenes, tmp_path, init={"random": "random"}, model="resnet18", settings=SETTINGS)


def test_a_dry_run_writes_nothing(scenes, tmp_path):
    arguments = ["transfer", "detect", "--data", str(scenes), "--out", str(tmp_path / "out"), "--init", "random",
                 "--model", "resnet18", "--schedule", "2", "--batch-size", "2", "--device", "cpu",
                 "--dry-run"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "one in five images is held out for the test: 2 of 10" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "", "table.json", ".hidden", "a\nb"])
def test_a_name_that_is_no_plain_folder_is_refused(scenes, tmp_path, name):
    with pytest.raises(RecipeError, match="name of a folder, so it expects letters"):
        transfer("detect", scenes, tmp_path, init={name: "random"}, model="resnet18")


@pytest.mark.parametrize("content", ["mine", "[]", '{"rows": 1}'])
def test_a_table_of_the_user_is_not_replaced(scenes, tmp_path, content):
    (tmp_path / "table.json").write_text(content)
    with pytest.raises(RecipeError, match="exists and is not a table of moco transfer"):
        transfer("detect", scenes, tmp_path, init={"random": "random"}, model="resnet18", settings=SETTINGS)
    assert (tmp_path / "table.json").read_text() == content


def test_settings_of_the_encoder_are_those_of_a_random_network(scenes, tmp_path):
    settings = SETTINGS | {"encoder.width": 0.125}
    init, options = {"random": "random"}, {"schedule": "1", "settings": settings, "device": "cpu"}
    table = transfer("detect", scenes, tmp_path, init=init, model="resnet18", **options)
    tensors = load_file(tmp_path / "random" / "trial_0" / "model" / "model.safetensors")
    assert tensors["backbone.body.conv1.weight"].shape[0] == 8
    assert table.rows[0].recipe.encoder == SPEC


def test_a_name_that_is_given_twice_is_refused(scenes, tmp_path):
    arguments = ["transfer", "detect", "--data", str(scenes), "--out", str(tmp_path / "out"), "--model", "resnet18"]
    result = CliRunner().invoke(app, [*arguments, "--init", "a=random", "--init", "a=other"])
    assert result.exit_code == 2
    assert "--init a is given twice" in " ".join(result.output.split())


def test_the_command_lists_the_tasks():
    from moco.cli.transfer import TaskName
    from moco.transfer.task_registry import TASKS

    assert list(TaskName) == list(TASKS)


def test_time_and_memory_are_stated_before_a_long_run_starts(scenes, tmp_path):
    init, options = {"random": "random"}, {"settings": SETTINGS, "device": "cpu", "model": "resnet18", "trials": 3}
    messages = []

    class Recorder(Silent):
        def say(self, text):
            messages.append(text)

    transfer("detect", scenes, tmp_path / "a", init=init, schedule="101", dry_run=True, reporter=Recorder(), **options)
    (sentence,) = [text for text in messages if "training takes about" in text]
    assert "for 3 runs with 303 iterations in all" in sentence
    assert "GiB of memory" in sentence
    assert not (tmp_path / "a").exists()
    messages.clear()
    transfer("detect", scenes, tmp_path / "a", init=init, schedule="100", dry_run=True, reporter=Recorder(), **options)
    assert not any("training takes" in text for text in messages)


def test_the_estimate_counts_what_is_left_and_leaves_the_weights_alone(scenes, weights, tmp_path):
    start, *_ = load_starts({"moco": str(weights)}, None, detection_recipe("detect", "fpn", "5").but(None, SETTINGS))
    data, _ = read_data(TASKS["detect"], scenes, None, split=(None, None), format=None)
    job = start.plan(0, TASKS["detect"], data, tmp_path, torch.device("cpu"), RunOptions(device="cpu", workers=1))
    assert iterations_left([job, job]) == [5, 5]
    encoder = start.encoder(0)
    before = {name: x.clone() for name, x in encoder.named_parameters()}
    found = measure_tuning(encoder, job)
    assert found.seconds > 0
    assert all(torch.equal(before[name], x) for name, x in encoder.named_parameters())
    job.run.path.mkdir(parents=True)
    job.run.metrics_file.write_text('{"step": 2, "epoch": 1.0}\n')
    assert iterations_left([job]) == [3]


def test_the_baseline_is_the_last_row_and_has_no_gap():
    baseline = Baseline("the most frequent class", {"AP": 12.5})
    table = TransferComparison([row("supervised", [50.0])], "supervised", ("AP", "AP50"), baseline)
    table = replace(table, rows=[TrialScores("supervised", table.rows[0].recipe, [{"AP": 50.0, "AP50": 60.0}])])
    lines = str(table).splitlines()
    assert lines[2].split() == ["the", "most", "frequent", "class", "12.5"]
    assert lines[1].index("50.0") == lines[2].index("12.5")
    assert table.to_dict()["baseline"] == {"name": "the most frequent class", "scores": {"AP": 12.5}}


@pytest.mark.parametrize("finished", [True, False])
def test_other_weights_under_the_same_name_are_refused(scenes, tmp_path, finished):
    torch.manual_seed(7)
    recipe = Recipe(name="r", encoder=SPEC)
    save_encoder(tmp_path / "encoder", build_headless(SPEC), recipe=recipe, facts={})
    init, options = {"moco": str(tmp_path / "encoder")}, {"schedule": "1", "settings": SETTINGS, "device": "cpu"}
    transfer("detect", scenes, tmp_path / "out", init=init, **options)
    if not finished:
        (tmp_path / "out" / "moco" / "trial_0" / "finished.json").unlink()
    save_encoder(tmp_path / "encoder", build_headless(SPEC), recipe=recipe, facts={})
    with pytest.raises(RecipeError, match="started from other weights than"):
        transfer("detect", scenes, tmp_path / "out", init=init, **options)
