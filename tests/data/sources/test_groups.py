"""Which images belong together."""

import numpy as np
import pytest

from moco.data.sources.groups import describe_groups, group_images
from moco.data.sources.images import DataError
from moco.recipe import RecipeError
from moco.recipes import named

NAMES = ["a/clip1_frame0.png", "a/clip1_frame1.png", "a/clip2_frame0.png", "b/clip1_frame0.png", "b/other.png"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("image", [0, 1, 2, 3, 4]),
        ("folder", [0, 0, 0, 3, 3]),
        ("(.*)_frame", [0, 0, 2, 3, 4]),  # the text in parentheses
        (r"clip\d", [0, 0, 2, 0, 4]),  # the match; a name without one is a group of its own
        ("(clip)|(other)", [0, 0, 0, 0, 4]),  # an expression whose first parentheses match nothing: no group
    ],
)
def test_a_group_has_the_number_of_its_first_image(rule, expected):
    np.testing.assert_array_equal(group_images(NAMES, rule), expected)


@pytest.mark.parametrize("rule", ["frame9", "(.*)", "b/c"])
def test_a_rule_that_puts_nothing_together_is_refused(rule):
    with pytest.raises(DataError, match="puts no two of 5 images together: expected 'image', 'folder', or a regular"):
        group_images(NAMES, rule)


def test_a_rule_that_is_no_expression_is_refused():
    with pytest.raises(RecipeError, match=r"data.groups must be 'image', 'folder' or a regular expression, got '\(a'"):
        named("demo").but(None, {"data.groups": "(a"})


def test_the_description_counts_groups_and_images():
    assert describe_groups(NAMES, "(.*)_frame") == "4 groups of up to 2 images by (.*)_frame, 3 of them of one image"
    assert describe_groups(NAMES, "folder") == "2 groups of up to 3 images by folder"
