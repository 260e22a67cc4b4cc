"""A run on two ranks: what one process would make of it, and what can happen to it."""

import copy
import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import typer
from making import make_pictures
from ranked import Ranks
from safetensors.torch import load_file
from torch import nn

from moco.cli.errors import errors
from moco.distributed import rank
from moco.encoders import build
from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.console import Console, Silent
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from moco.train.unused import unused_parameters


class AtStep(Silent):
    """Does something when the run shows the given step."""

    def __init__(self, step: int, do):
        self.step, self.do = step, do

    def live(self, *parts: str) -> None:
        if f"step {self.step}" in parts:
            self.do()


def kill(number: int):
    return lambda: os.kill(os.getpid(), number)


def on_two(*args, world: int = 2, of_rank=lambda r: {}, **options) -> list[int]:
    """The exit codes of `moco pretrain` on two ranks; `of_rank` gives options that differ by rank."""

    def work(r: int) -> None:
        try:
            with errors():
                pretrain(*args, workers=0, **(options | of_rank(r)))
        except typer.Exit as leaving:
            raise SystemExit(leaving.exit_code) from None

    return Ranks(work, world).wait()


@pytest.fixture
def recipe(tiny) -> Recipe:
    return tiny.but("ranks", {"method.bn_groups": 2, "compute.threads": 1})


@pytest.fixture
def whole(pictures, recipe, tmp_path) -> dict:
    """How an undisturbed run on two ranks ends."""
    assert on_two(pictures, tmp_path / "whole", recipe=recipe) == [0, 0]
    return ended(tmp_path / "whole")


def ended(out: Path) -> dict:
    """The last checkpoint without its recipe, and the losses and scores that were logged."""
    payload = checkpoint.read_checkpoint(checkpoint.newest_intact(out / "checkpoints"))
    values = ("step", "loss", "pretext_top1", "knn")
    records = [{name: record.get(name) for name in values} for record in RunFolder(out).metrics()]
    return {name: value for name, value in payload.items() if name != "recipe"} | {"records": records}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


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
    assert unused_parameters(encoder, size=16) == []
    partial = Partial(skips=False)
    assert unused_parameters(partial, size=16) == ["unused.weight", "unused.bias"]
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


def test_rank_0_alone_writes_and_speaks(pictures, recipe, tmp_path, capfd):
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
    ranks = Ranks(lambda _: _slowly(pictures, tmp_path / "run", recipe), 2)
    _until_step(tmp_path / "run", 2)
    ranks.kill(number, only=which)
    ranks.kill(number, only=which)  # a scheduler and a launcher may both send it
    assert ranks.wait() == [75, 75]
    assert capfd.readouterr().err.count(f"stopped by {number.name} after step") == 1
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    assert same(whole, ended(tmp_path / "run"))


def _slowly(pictures: Path, out: Path, recipe: Recipe, **options) -> None:
    """`pretrain` with the exit code of the command; a step takes 50 ms at least."""

    class Slow(Silent):
        def live(self, *parts: str) -> None:
            time.sleep(0.05)

    try:
        with errors():
            pretrain(pictures, out, recipe=recipe, workers=0, reporter=Slow(), **options)
    except typer.Exit as leaving:
        raise SystemExit(leaving.exit_code) from None


def _until_step(out: Path, step: int) -> None:
    end = time.monotonic() + 60
    while not any(record.get("step", 0) >= step for record in RunFolder(out).metrics()):
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.005)


def test_the_comparison_notices_statistics_that_are_not_each_ranks_own(pictures, recipe, whole, tmp_path, monkeypatch):
    """A planted fault: on a resume every rank gets the mean."""
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=stop) == [75, 75]
    honest = checkpoint.read_checkpoint
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda file: honest(file) | {"statistics": {}})
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    monkeypatch.undo()
    assert not same(whole, ended(tmp_path / "run"))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_is_allowed_and_announced(pictures, recipe, tmp_path, before, after):
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=stop, world=before) == [75] * before
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=after) == [0] * after
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"began with {before} ranks, goes on with {after}: allowed, but not the same bits" in log
    assert [record["step"] for record in RunFolder(tmp_path / "run").metrics()] == list(range(1, 11))
    pretrain(pictures, tmp_path / "whole", recipe=recipe, workers=0)
    for a, b in zip(ended(tmp_path / "whole")["records"], ended(tmp_path / "run")["records"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_run_and_the_next_start_resumes_it(pictures, recipe, whole, tmp_path, lost):
    ranks = Ranks(lambda _: _slowly(pictures, tmp_path / "run", recipe, save_every=1), 2)
    _until_step(tmp_path / "run", 4)
    ranks.kill(only=lost)
    start = time.monotonic()
    assert sorted(ranks.wait()) == [-signal.SIGKILL, 1]
    assert time.monotonic() - start < 20
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    assert same(whole, ended(tmp_path / "run"))


def test_ranks_whose_launcher_is_killed_save_and_stop(pictures, recipe, tmp_path):
    launcher = os.fork()
    if launcher == 0:
        Ranks(lambda _: _slowly(pictures, tmp_path / "run", recipe), 2)
        signal.pause()
    _until_step(tmp_path / "run", 2)
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    end = time.monotonic() + 30
    while not list((tmp_path / "run" / "checkpoints").glob("step_*.pt")):
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.01)
    assert max(record["step"] for record in RunFolder(tmp_path / "run").metrics()) < 10


def test_an_error_on_one_rank_is_said_once_and_is_the_exit_code_of_all(pictures, recipe, tmp_path, capfd):
    for name in ("0003.png", "0011.png"):
        (pictures / name).write_bytes(b"not a picture")
    strict = lambda r: {"max_bad": 0 if r == 1 else 40}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=strict) == [3, 3]
    assert capfd.readouterr().err.count("images are bad") == 1


def test_a_recipe_that_does_not_divide_over_the_ranks_is_refused_once(pictures, recipe, tmp_path, capfd):
    change = {"settings": {"method.bn_groups": 4, "optim.batch_size": 8}}
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=3, **change) == [2, 2, 2]
    assert capfd.readouterr().err.count("must divide over 3 ranks") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_on_all_ranks(pictures, recipe, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    assert on_two(pictures, tmp_path / "home", recipe=recipe) == [2, 2]


def test_a_loss_that_is_not_finite_ends_all_ranks_with_the_code_of_divergence(pictures, recipe, tmp_path):
    assert on_two(pictures, tmp_path / "run", recipe=recipe, settings={"optim.lr": 1e30}) == [4, 4]


def test_ranks_that_see_other_images_are_refused(pictures, recipe, tmp_path, capfd):
    other = make_pictures(tmp_path / "other", 40, seed=1)

    def work(r: int) -> None:
        try:
            with errors():
                pretrain(other if r else pictures, tmp_path / "run", recipe=recipe, workers=0)
        except typer.Exit as leaving:
            raise SystemExit(leaving.exit_code) from None

    assert Ranks(work, 2).wait() == [3, 3]
    assert capfd.readouterr().err.count("the ranks do not see the same images") == 1


def test_bad_images_that_any_rank_finds_are_listed_once(pictures, recipe, tmp_path):
    broken = [f"{i:04d}.png" for i in (1, 5, 9, 17, 33)]
    for name in broken:
        (pictures / name).write_bytes(b"not a picture")
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    rows = list(csv.reader((tmp_path / "run" / "bad_images.csv").read_text().splitlines()))
    assert sorted(name for name, _ in rows[1:]) == broken
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["bad_images"] == 5


def test_too_many_bad_images_on_all_ranks_together_stop_the_run(pictures, recipe, tmp_path, capfd):
    """Each rank finds some of the six in the first steps, and none of them more than the five that are allowed."""
    for i in range(0, 36, 6):
        (pictures / f"{i:04d}.png").write_bytes(b"not a picture")
    assert on_two(pictures, tmp_path / "run", recipe=recipe, max_bad=5, save_every=5) == [3, 3]
    assert "6 of 40 images are bad" in capfd.readouterr().err


def test_rank_0_decides_the_recipe(pictures, tiny, tmp_path):
    """What a recipe leaves open depends on the machine: here on its threads."""

    def work(r: int) -> None:
        torch.set_num_threads(1 + r)
        run = pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, {"method.bn_groups": 2}), dry_run=True)
        assert rank() == 0  # the session is over
        assert run.recipe.compute.threads == 1

    assert Ranks(work, 2).wait() == [0, 0]


def test_a_restarted_command_goes_on_though_it_says_overwrite(pictures, recipe, tmp_path):
    out = tmp_path / "run"
    stop = lambda _: {"reporter": AtStep(4, kill(signal.SIGTERM))}  # noqa: E731
    assert on_two(pictures, out, recipe=recipe, of_rank=stop) == [75, 75]

    def again(_: int) -> None:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
        pretrain(pictures, out, recipe=recipe, workers=0, overwrite=True)

    assert Ranks(again, 2).wait() == [0, 0]
    assert "resuming" in (out / "train.log").read_text()
