"""A recipe for two ranks, and its run without interruption."""

import pytest

from moco.recipe import Recipe
from tests.ranks.helpers import ended, on_two


@pytest.fixture
def recipe(tiny) -> Recipe:
    return tiny.but("ranks", {"method.bn_groups": 2, "compute.threads": 1})


@pytest.fixture
def whole(pictures, recipe, tmp_path) -> dict:
    """How an undisturbed run on two ranks ends."""
    assert on_two(pictures, tmp_path / "whole", recipe=recipe) == [0, 0]
    return ended(tmp_path / "whole")
