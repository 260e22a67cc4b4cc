"""Errors, lost ranks and bad images: all ranks end alike, and one of them reports it."""

import csv
import json
import os
import signal
import time

import pytest
import typer
from run_ranks import Ranks
from sample_pictures import make_pictures

from moco.cli.errors import errors
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from tests.ranks.helpers import ended, on_two, same, slowly, until_step


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_run_and_the_next_start_resumes_it(pictures, recipe, whole, tmp_path, lost):
    ranks = Ranks(lambda _: slowly(pictures, tmp_path / "run", recipe, save_every=1), 2)
    until_step(tmp_path / "run", 4)
    ranks.kill(only=lost)
    start = time.monotonic()
    assert sorted(ranks.wait()) == [-signal.SIGKILL, 1]
    assert time.monotonic() - start < 20
    assert on_two(pictures, tmp_path / "run", recipe=recipe) == [0, 0]
    assert same(whole, ended(tmp_path / "run"))


def test_ranks_whose_launcher_is_killed_save_and_stop(pictures, recipe, tmp_path):
    launcher = os.fork()
    if launcher == 0:
        Ranks(lambda _: slowly(pictures, tmp_path / "run", recipe), 2)
        signal.pause()
    until_step(tmp_path / "run", 2)
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    end = time.monotonic() + 30
    while not list((tmp_path / "run" / "checkpoints").glob("step_*.pt")):
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.01)
    assert max(record["step"] for record in RunFolder(tmp_path / "run").metrics()) < 10


def test_an_error_on_one_rank_is_printed_once_and_gives_the_exit_code(pictures, recipe, tmp_path, capfd):
    for name in ("0003.png", "0011.png"):
        (pictures / name).write_bytes(b"not a picture")
    strict = lambda r: {"max_bad": 0 if r == 1 else 40}  # noqa: E731
    assert on_two(pictures, tmp_path / "run", recipe=recipe, of_rank=strict) == [3, 3]
    assert capfd.readouterr().err.count("images are bad") == 1


def test_a_recipe_that_does_not_divide_over_the_ranks_is_refused_once(pictures, recipe, tmp_path, capfd):
    change = {"settings": {"method.bn_groups": 4, "optim.batch_size": 8}}
    assert on_two(pictures, tmp_path / "run", recipe=recipe, world=3, **change) == [2, 2, 2]
    assert capfd.readouterr().err.count("must be multiples of the 3 ranks") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_refused_on_all_ranks(pictures, recipe, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    assert on_two(pictures, tmp_path / "home", recipe=recipe) == [2, 2]


def test_a_loss_that_is_not_finite_ends_all_ranks_with_the_code_of_divergence(pictures, recipe, tmp_path):
    assert on_two(pictures, tmp_path / "run", recipe=recipe, settings={"optim.lr": 1e30}) == [4, 4]


def test_ranks_with_different_images_are_refused(pictures, recipe, tmp_path, capfd):
    other = make_pictures(tmp_path / "other", 40, seed=1)

    def work(r: int) -> None:
        try:
            with errors():
                pretrain(other if r else pictures, tmp_path / "run", recipe=recipe, workers=0)
        except typer.Exit as leaving:
            raise SystemExit(leaving.exit_code) from None

    assert Ranks(work, 2).wait() == [3, 3]
    assert capfd.readouterr().err.count("the ranks have images with different names or sizes") == 1


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
