"""The examples run, at toy size, and are as short as promised."""

import importlib.util
import math
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def module_of(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_at_most_45_lines(path):
    assert len(path.read_text().splitlines()) <= 45


def test_the_loop_of_ones_own_runs_and_its_loss_is_finite():
    example = module_of(Path(__file__).parent.parent / "examples" / "own_loop.py")
    losses = example.train(example.noisy_pairs, steps=3, batch_size=8, num_keys=32)
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
