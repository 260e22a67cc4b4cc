"""Which images belong together."""

import re

import numpy as np
import pytest
from PIL import Image
from sample_pictures import make_pictures

from moco.data.sources.groups import describe_groups, group_images
from moco.data.sources.images import DataError
from moco.data.sources.split import split_sources
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


@pytest.mark.parametrize("rule", ["", "^", "png"])
def test_a_rule_that_puts_all_together_is_refused_since_no_key_would_be_a_negative(rule):
    with pytest.raises(DataError, match="puts all 5 images together, so no key would be a negative"):
        group_images(NAMES, rule)


def test_a_single_image_is_a_group():
    assert group_images(["a.png"], "image").tolist() == [0]
    with pytest.raises(DataError, match="puts no two of 1 images together"):
        group_images(["a.png"], "folder")


@pytest.mark.parametrize("rule", ["(a", "a{99999999999999}", "(" * 2000 + ")" * 2000], ids=["open", "count", "deep"])
def test_a_rule_that_is_no_expression_is_refused(rule):
    with pytest.raises(RecipeError, match=r"data.groups must be 'image', 'folder' or a regular expr") as raised:
        named("demo").but(None, {"data.groups": rule})
    assert len(str(raised.value)) < 400


def test_the_description_counts_groups_and_images():
    assert describe_groups(NAMES, "(.*)_frame") == "4 groups of up to 2 images by (.*)_frame, 3 of them of one image"
    assert describe_groups(NAMES, "folder") == "2 groups of up to 3 images by folder"


def test_a_held_out_fifth_parts_no_group(tmp_path):
    rng = np.random.default_rng(0)
    for clip in range(30):
        for frame in range(3):
            place = tmp_path / ("cats" if clip % 3 else "dogs")
            place.mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"clip{clip:02}_{frame}.png")
    rule = r"(clip\d+)_"
    clips = lambda images: {re.findall(rule, name)[0] for name in images.names}  # noqa: E731
    apart, mixed = split_sources(tmp_path, groups=rule), split_sources(tmp_path)
    assert clips(mixed.train) & clips(mixed.test), "the test needs a split that parts groups"
    assert not clips(apart.train) & clips(apart.test)
    assert (len(clips(apart.train)), len(clips(apart.test))) == (24, 6)  # of each class, one group in five
    assert np.bincount(apart.test.labels).tolist() == [12, 6]
    assert apart.how.startswith("one in 5 of the groups by (clip\\d+)_ of each class, the same in every run, is held")


def test_groups_that_are_whole_classes_are_too_few_to_hold_any_out(tmp_path):
    make_pictures(tmp_path, 40, classes=2)
    with pytest.raises(DataError, match=r"by data.groups='folder' are too few .* the test: give training"):
        split_sources(tmp_path, groups="folder")
