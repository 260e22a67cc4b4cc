"""moco runs show and compare; curves as text; completion by the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moco.curves_as_text import BLOCKS, CURVE_WIDTH, draw, draw_text_curves, points_of
from moco.recipe import Recipe


def test_a_falling_line_is_drawn_from_the_highest_to_the_lowest_block():
    points = [(i / 100, 7.0 - 7 * i / 100) for i in range(101)]
    line = draw(points, 1.0, (0.0, 7.0), BLOCKS)
    assert len(line) == CURVE_WIDTH
    assert line == "".join(sorted(line, reverse=True))
    assert (line[0], line[-1]) == (BLOCKS[-1], BLOCKS[0])
    counts = [line.count(block) for block in BLOCKS]
    assert set(counts) <= {4, 5, 6}  # 40 columns on 8 blocks


def test_a_shorter_run_ends_earlier_and_a_gap_repeats_the_value_before():
    line = draw([(0.0, 1.0), (2.0, 0.0)], 4.0, (0.0, 1.0), BLOCKS)
    assert line == BLOCKS[-1] * 20 + BLOCKS[0]


def test_values_that_are_not_finite_or_no_numbers_are_left_out():
    records = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": "x"}, {"epoch": None, "loss": 1.0}]
    assert points_of([*records, {"epoch": 3, "loss": float("inf")}, {"epoch": 4, "loss": 2.0}], "loss") == [(4.0, 2.0)]


def test_curves_without_values_and_of_equal_values_are_drawn():
    assert draw_text_curves([("a", [])]) == []
    assert "2.000 → 2.000" in "\n".join(draw_text_curves([("a", [{"epoch": 0, "loss": 2.0}])]))


def test_without_block_characters_in_the_encoding_ascii_is_used():
    "\n".join(draw_text_curves([("a", [{"epoch": 1, "loss": 2.0}])], encoding="ascii")).encode("ascii")


@pytest.fixture
def runs(tmp_path):
    for name, epochs in (("a", 4), ("b", 2)):
        folder = tmp_path / name
        folder.mkdir()
        recipe = Recipe(name="moco_v2_r50").but(None, {"optim.epochs": epochs})
        (folder / "recipe.json").write_text(recipe.to_json())
        lines = [{"step": step, "epoch": step / 2, "loss": 5.0 - step / 4} for step in range(1, 2 * epochs + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def moco(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "moco", *map(str, args)], capture_output=True, text=True, env=os.environ | env
    )


def test_compare_shows_differing_settings_and_curves_on_one_axis(runs):
    shown = moco("runs", "compare", runs / "a", runs / "b", runs / "a")
    assert "optim.epochs: 4 -> 2" in shown.stdout
    assert f"{runs / 'a'} has the same settings" in shown.stdout
    first, second = [line for line in shown.stdout.splitlines() if "→" in line][:2]
    assert first.strip().endswith("4.750 → 3.000")
    assert second.strip().endswith("4.750 → 4.000")
    assert "loss over 4 epochs, from 3.000 to 4.750" in shown.stdout
    found = json.loads(moco("runs", "compare", runs / "a", runs / "b", "--json").stdout)
    assert found["differences"] == ["optim.epochs: 4 -> 2"]


def test_show_lists_the_settings_that_differ_from_the_recipe_of_that_name(runs):
    shown = moco("runs", "show", runs / "a").stdout
    assert "settings other than those of moco_v2_r50:" in shown
    assert "-> 4" in next(line for line in shown.splitlines() if line.startswith("optim.epochs"))
    assert len(json.loads(moco("runs", "show", runs / "a", "--json").stdout)["records"]) == 8


def test_one_run_or_no_run_is_refused(runs):
    one, none = moco("runs", "compare", runs / "a"), moco("runs", "show", runs)
    assert (one.returncode, none.returncode) == (2, 2)
    assert "two or more" in one.stderr
    assert "recipe.json" in none.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("moco pretrain x --recipe moco_v3_vit_", "moco_v3_vit_small"),
        ("moco pretrain x --set optim.l", "optim.lr"),
        ("moco pretrain x --set data.views=moco_v3", "data.views=moco_v3_vit"),
        ("moco pretrain x --model resnet5", "resnet50"),
        ("moco pretrain x --log ten", "tensorboard"),
        ("moco explain memory", "memory_bank_nce"),
    ],
)
def test_the_shell_completes_names(words, expected):
    command = Path(sys.executable).with_name("moco")
    words_so_far = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_MOCO_COMPLETE": "complete_bash"}
    done = subprocess.run([command], capture_output=True, text=True, env=os.environ | words_so_far)
    assert expected in done.stdout
