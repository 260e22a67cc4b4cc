"""Curves of a run: the lines are the logged numbers, and the dashed line is where nothing is learned."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from moco.recipe import Recipe
from moco.recipes import named
from moco.report import plots
from moco.train.run_folder import RunFolder

EPOCHS = 4.0


def a_run(folder: Path, *, points: int, scores: int = 0, recipe: Recipe | None = None) -> tuple[Path, list[float]]:
    """A run folder with a loss that falls, and its logged losses."""
    folder.mkdir()
    (folder / "recipe.json").write_text((recipe or named("demo")).to_json())
    losses = [8.0 - 3.0 * i / points + 0.1 * math.sin(7 * i) for i in range(points)]
    lines: list[dict[str, object]] = [{"event": "start"}]
    for i, loss in enumerate(losses):
        epoch = EPOCHS * (i + 1) / points
        lines.append(
            {"step": i + 1, "epoch": epoch, "loss": loss, "lr": 0.06 / (i + 1), "m": 0.99, "pretext_top1": 0.1}
        )
    lines += [{"step": i, "epoch": EPOCHS * i / scores, "knn": 30.0 + i} for i in range(scores + 1) if scores]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "lo')
    return folder, losses


def curves(run: Path, out: Path) -> None:
    plots.curves(RunFolder(run).metrics(), RunFolder(run).recipe(), out)


def drawn(run: Path, *, chance: float | None = None) -> Figure:
    return plots.make_figure(RunFolder(run).metrics(), RunFolder(run).recipe(), chance=chance)


def heights_of_dashed_lines(ax: Axes) -> list[float]:
    return [float(np.unique(line.get_ydata()).item()) for line in ax.lines if line.get_linestyle() == "--"]


def test_the_loss_is_drawn_over_epochs_as_it_was_logged(tmp_path: Path):
    run, losses = a_run(tmp_path / "run", points=10)
    line = drawn(run).axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), losses)
    np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), EPOCHS * np.arange(1, 11) / 10)


def test_a_long_run_has_a_moving_mean_in_the_middle_of_its_window(tmp_path: Path):
    run, losses = a_run(tmp_path / "run", points=125)
    _, smooth, _ = drawn(run).axes[0].lines  # the losses, their mean over 125 // 25 = 5 points, the collapse level
    np.testing.assert_allclose(smooth.get_ydata(), [np.mean(losses[i : i + 5]) for i in range(121)])
    np.testing.assert_allclose(np.asarray(smooth.get_xdata(), dtype=float), EPOCHS * np.arange(3, 124) / 125)


def test_the_collapse_level_is_a_dashed_line_in_view(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10)
    ax = drawn(run).axes[0]
    assert heights_of_dashed_lines(ax) == pytest.approx([math.log(4096 + 1)])
    low, high = ax.get_ylim()
    assert low < math.log(4097) < high


def test_the_loss_has_its_proper_name(tmp_path: Path):
    names = {"demo": "InfoNCE loss\n[nats]", "memory_bank_nce": "NCE loss\n[nats]"}
    for name, label in names.items():
        run, _ = a_run(tmp_path / name, points=10, recipe=named(name))
        assert drawn(run).axes[0].get_ylabel() == label


def test_the_keys_of_the_mini_batch_are_those_that_a_collapse_makes_alike(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10, recipe=named("end_to_end_512"))
    ax = drawn(run).axes[0]
    assert heights_of_dashed_lines(ax) == pytest.approx([math.log(512)])
    assert any("chance among 512 keys" in text.get_text() for text in ax.texts)


def test_a_loss_above_the_collapse_level_is_in_view_too(tmp_path: Path):
    run, losses = a_run(tmp_path / "run", points=10, recipe=named("demo").but("small", {"method.size": 128}))
    assert max(losses) > math.log(129)
    low, high = drawn(run).axes[0].get_ylim()
    assert low < min(losses)
    assert max(losses) < high


def test_losses_while_the_queue_has_random_keys_do_not_set_the_axis(tmp_path: Path):
    recipe = named("demo")
    run, losses = a_run(tmp_path / "run", points=100, recipe=recipe)
    first = recipe.method.size / recipe.keys_per_step  # steps until all random keys are replaced
    assert 1 < first < 90
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:-1]]
    lowered = [line | {"loss": 0.01} if line.get("step", first + 1) <= first else line for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lowered))
    low, _ = drawn(run).axes[0].get_ylim()
    assert 0.01 < low < min(losses)
    assert any("random keys" in text.get_text() for text in drawn(run).axes[0].texts)


def test_the_accuracy_has_a_panel_of_its_own_where_it_was_measured(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10, scores=4)
    loss, knn, lr = drawn(run, chance=10.0).axes
    np.testing.assert_array_equal(knn.lines[0].get_ydata(), [30, 31, 32, 33, 34])
    assert heights_of_dashed_lines(knn) == [10.0]
    assert (loss.get_ylabel(), knn.get_ylabel(), lr.get_ylabel()) == (
        "InfoNCE loss\n[nats]", "kNN accuracy\n[%]", "learning\nrate",
    )  # fmt: skip


def test_without_scores_there_are_two_panels(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10)
    assert len(drawn(run).axes) == 2


def test_the_learning_rate_is_drawn_from_zero(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10)
    ax = drawn(run).axes[-1]
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata(), dtype=float), 0.06 / np.arange(1, 11))
    assert ax.get_ylim()[0] == 0
    assert ax.get_xlabel() == "epoch"


def test_a_run_of_one_logged_step_can_be_drawn(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=1)
    curves(run, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_run_without_logged_steps_is_an_error_that_says_so(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=0)
    with pytest.raises(ValueError, match="has logged no step yet"):
        curves(run, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_the_picture_is_a_png_twice_as_wide_as_it_is_shown(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=60, scores=3)
    curves(run, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert (image.format, image.width) == ("PNG", 1600)


def test_drawing_uses_no_global_state_of_matplotlib(tmp_path: Path):
    run, _ = a_run(tmp_path / "run", points=10)
    probe = (
        "import sys, moco.report.plots as plots; from pathlib import Path\n"
        "print('matplotlib' in sys.modules)\n"
        "from moco.train.run_folder import RunFolder\n"
        f"run = RunFolder(Path({str(run)!r}))\n"
        f"plots.curves(run.metrics(), run.recipe(), Path({str(tmp_path / 'out.png')!r}))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False"]
