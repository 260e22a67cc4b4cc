"""A run on two ranks: what one process would make of it, and what can happen to it."""

import copy
import json
import os
import re
import signal

import pytest
import torch
from run_ranks import Ranks
from safetensors.torch import load_file
from sample_pictures import make_pictures
from torch import nn

from moco.distributed import rank
from moco.encoders import build
from moco.train import checkpoint
from moco.train.console import Console
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from moco.train.unused_parameters import find_unused_parameters
from tests.ranks.helpers import AtStep, ended, kill, on_two, same, slowly, until_step


def test_two_ranks_train_what_one_process_does_with_two_bn_groups(pictures, recipe, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    options = {"recipe": recipe, "eval_data": labelled, "eval_every": 1}
    pretrain(pictures, tmp_path / "one", workers=0, **options)
    assert on_two(pictures, tmp_path / "two", **options) == [0, 0]
    one, two = ended(tmp_path / "one"), ended(tmp_path / "two")
    assert (two["ranks"], "ranks" in one) == (2, False)
    for a, b in zip(one["records"], two["records"], strict=True):
        assert b == {name: value and pytest.approx(value, rel=1e-5) for name, value in a.items()}
    for name, x in one["state"]["model"].items():
        if not name.endswith("num_batches_tracked"):  # one process counts its groups
            torch.testing.assert_close(two["state"]["model"][name], x, rtol=1e-4, atol=1e-6)
    encoders = [load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("one", "two")]
    torch.testing.assert_close(encoders[1]["bn1.running_var"], encoders[0]["bn1.running_var"])


class Partial(nn.Module):
    """A backbone with a layer that nothing uses, and one that is skipped at random, apart on each rank."""

    def __init__(self, skips: bool):
        super().__init__()
        self.stem, self.norm, self.out = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8, 8)
        self.unused, self.extra, self.skips = nn.Linear(8, 8), nn.Linear(8, 8), skips

    def forward(self, x):
        x = self.norm(self.stem(x)).relu().mean(dim=(2, 3))
        if self.training and self.skips and torch.rand(()) < 0.5:
            return self.out(x)
        return self.out(x + self.extra(x))


def test_a_module_with_unused_parameters_trains_on_two_ranks_as_in_one_process(pictures, recipe, tmp_path):
    torch.manual_seed(0)
    model = Partial(skips=False)
    unused = model.unused.weight.detach().clone()
    pretrain(pictures, tmp_path / "one", workers=0, recipe=recipe, model=copy.deepcopy(model))
    assert on_two(pictures, tmp_path / "two", recipe=recipe, model=model) == [0, 0]
    one, two = (ended(tmp_path / name)["state"]["model"] for name in ("one", "two"))
    for name, x in one.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(two[name], x, rtol=1e-4, atol=1e-6)
    assert torch.equal(two["encoder.backbone.unused.weight"], unused)


def test_a_module_that_skips_layers_at_random_trains_on_two_ranks(pictures, recipe, tmp_path):
    assert on_two(pictures, tmp_path / "run", recipe=recipe, model=Partial(skips=True)) == [0, 0]
    assert [record["step"] for record in RunFolder(tmp_path / "run").metrics()] == list(range(1, 11))


def test_a_networks_unused_parameters_are_found_before_the_first_step(recipe):
    encoder = build(recipe.encoder, size=16)
    weights = {name: x.clone() for name, x in encoder.state_dict().items()}
    assert find_unused_parameters(encoder, size=16) == []
    partial = Partial(skips=False)
    assert find_unused_parameters(partial, size=16) == ["unused.weight", "unused.bias"]
    assert all(torch.equal(x, weights[name]) for name, x in encoder.state_dict().items())
    assert all(x.grad is None for x in [*encoder.parameters(), *partial.parameters()])


def test_the_checkpoint_holds_the_mean_statistics_and_each_ranks_own(pictures, recipe, tmp_path):
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    payload = ended(tmp_path / "run")
    name = "encoder.backbone.bn1.running_mean"
    own = payload["statistics"][name]
    assert own.shape == (2, *payload["state"]["model"][name].shape)
    assert not torch.equal(own[0], own[1])
    torch.testing.assert_close(payload["state"]["model"][name], own.mean(dim=0))
    assert not any(name.startswith("dictionary") or "weight" in name for name in payload["statistics"])


def test_only_rank_0_writes_and_reports(pictures, recipe, tmp_path, capfd):
    assert on_two(pictures, tmp_path / "two", recipe=recipe, of_rank=lambda _: {"reporter": Console()}) == [0, 0]
    said = capfd.readouterr().err
    assert said.count("== plan") == said.count("== done") == 1
    assert "8 images on 2 ranks" in said
    assert re.search(r"epoch 0\.2/2 .*step 1\b", said)
    pretrain(pictures, tmp_path / "one", recipe=recipe)
    files = [{path.name for path in (tmp_path / name).rglob("*")} for name in ("one", "two")]
    assert files[0] == files[1]
    facts = [json.loads((tmp_path / name / "provenance.json").read_text())[0] for name in ("one", "two")]
    assert [fact["ranks"] for fact in facts] == [1, 2]


@pytest.mark.parametrize(("number", "which"), [(signal.SIGTERM, 1), (signal.SIGINT, None), (signal.SIGUSR1, 0)])
def test_a_signal_to_any_rank_stops_all_after_the_same_step_and_they_resume_bit_for_bit(
    pictures, recipe, whole, tmp_path, number, which, capfd
):
    ranks = Ranks(lambda _: slowly(pictures, tmp_path / "run", recipe), 2)
    until_step(tmp_path / "run", 2)
    ranks.kill(number, only=which)
    ranks.kill(number, only=which)  # a scheduler and a launcher may both send it
    assert ranks.wait() == [75, 75]
    assert capfd.readouterr().err.count(f"stopped by {number.name} after step") == 1
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    assert same(whole, ended(tmp_path / "run"))


def test_the_comparison_detects_statistics_that_are_not_each_ranks_own(pictures, recipe, whole, tmp_path, monkeypatch):
    """A planted fault: on a resume every rank gets the mean."""
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=stop) == [75, 75]
    honest = checkpoint.read_checkpoint
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda file: honest(file) | {"statistics": {}})
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    monkeypatch.undo()
    assert not same(whole, ended(tmp_path / "run"))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_is_allowed_and_reported(pictures, recipe, tmp_path, before, after):
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=stop, world=before) == [75] * before
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=after) == [0] * after
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"resumed with {after} ranks instead of {before}: the results will not be bit-identical" in log
    assert [record["step"] for record in RunFolder(tmp_path / "run").metrics()] == list(range(1, 11))
    pretrain(pictures, tmp_path / "whole", recipe=recipe, workers=0)
    for a, b in zip(ended(tmp_path / "whole")["records"], ended(tmp_path / "run")["records"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_rank_0_decides_the_recipe(pictures, tiny, tmp_path):
    """What a recipe leaves open depends on the machine: here on its threads."""

    def work(r: int) -> None:
        torch.set_num_threads(1 + r)
        run = pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, {"method.bn_groups": 2}), dry_run=True)
        assert rank() == 0  # the session is over
        assert run.recipe.compute.threads == 1

    assert Ranks(work, 2).wait() == [0, 0]


def test_a_command_restarted_by_torchrun_resumes_despite_overwrite(pictures, recipe, tmp_path):
    out = tmp_path / "run"
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, out, recipe=recipe, of_rank=stop) == [75, 75]

    def again(_: int) -> None:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
        pretrain(pictures, out, recipe=recipe, workers=0, overwrite=True)

    assert Ranks(again, 2).wait() == [0, 0]
    assert "resuming" in (out / "train.log").read_text()
