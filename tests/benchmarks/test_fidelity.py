"""The numbers by which views of one distribution are told from those of another."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from benchmarks import fidelity
from benchmarks.pictures import photographs


def test_gradient_is_the_mean_step_between_neighbours():
    """Columns that rise by 3: 3 to the right, 0 downwards."""
    rising = (3.0 * torch.arange(16)).expand(1, 3, 16, 16)
    assert fidelity.gradient(rising).item() == pytest.approx(1.5, abs=1e-4)


def test_chroma_is_zero_for_grey_and_the_red_value_for_red():
    red = torch.zeros(2, 3, 4, 4)
    red[1, 0] = 200.0
    assert fidelity.chroma(red).tolist() == [0.0, 200.0]


def test_grey_share_counts_views_without_colour():
    views = torch.full((2, 3, 4, 4), 7.0)
    views[1, 2, 0, 0] = 30.0
    assert fidelity.STATISTICS["grey share"](views).tolist() == [1.0, 0.0]


def test_gradient_tells_a_resize_without_antialiasing_from_one_with_it():
    """By more than 3 %, which is as far as views may be from the reference."""
    photo = torch.from_numpy(np.array(photographs()[0])).permute(2, 0, 1)[None].float()
    with_it, without = (F.resize(photo, [200, 200], antialias=antialias) for antialias in (True, False))
    assert fidelity.gradient(without).item() > 1.03 * fidelity.gradient(with_it).item()


@pytest.mark.slow
def test_a_reference_is_its_own_equal_and_the_table_has_a_row_for_each_way():
    head, first, *others = fidelity.rows(8, 2)
    cells = [float(cell) for cell in first.split("|")[2:-1]]
    assert cells == [1.0] * len(fidelity.STATISTICS) + [0.0]
    assert {line.count("|") for line in (first, *others)} == {head.splitlines()[0].count("|")}
    assert len(others) >= 3
