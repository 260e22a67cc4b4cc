"""Views for a kind of images: changes to the views of any recipe, each with its reason and source.

The papers' views are made for photographs of objects. Elsewhere some changes do nothing (hue, where there is no
colour), and others change what an image means (a mirror, where there is text).
"""

from typing import Any, NamedTuple

from moco.recipe import RecipeError, unknown

UP_AND_DOWN_ALIKE = {"flip_vertical": 0.5, "rotate90": 0.75}  # 0.75: each of the four directions is equally likely
NO_COLOUR = {"grey": 0.0, "jitter.hue": 0.0, "jitter.saturation": 0.0}


class DomainViews(NamedTuple):
    """Settings of `View` by dotted name, for both views."""

    changes: dict[str, Any]
    reason: str
    source: str = "this project's choice"


DOMAINS: dict[str, DomainViews] = {
    "natural": DomainViews({}, "photographs: the recipe's own views"),
    "aerial": DomainViews(UP_AND_DOWN_ALIKE, "seen from above, nothing is up or down"),
    "microscopy": DomainViews(
        UP_AND_DOWN_ALIKE | NO_COLOUR,
        "nothing is up or down, and colours are those of dyes or of one channel, so only brightness and contrast vary",
    ),
    "histology": DomainViews(
        UP_AND_DOWN_ALIKE | {"grey": 0.0},
        "nothing is up or down; stains differ between laboratories, so colours still vary, but are not removed",
        "vertical flips: arXiv:2212.04690; the rest is this project's choice",
    ),
    "xray": DomainViews(
        NO_COLOUR | {"blur": 0.0, "solarize": 0.0, "crop_area": (0.5, 1.0)},
        "no colour; a finding may be small, and blur or a small crop removes it",
        "arXiv:2010.05352 gives these reasons; the numbers are this project's choice",
    ),
    "document": DomainViews({"flip": 0.0, "solarize": 0.0}, "mirrored text is another text"),
    "drawing": DomainViews({"blur": 0.0, "solarize": 0.0}, "lines are thin: a blur removes them"),
    "thermal": DomainViews(NO_COLOUR, "one channel, no colour"),
    "multispectral": DomainViews(
        UP_AND_DOWN_ALIKE | NO_COLOUR, "seen from above, and bands have no hue: with --bands, which varies each of them"
    ),
    "small": DomainViews(
        {"blur": 0.0}, "of images of 32 pixels a blur leaves little", "arXiv:2002.05709, appendix B.9 (CIFAR-10)"
    ),
}


def changes_for(name: str | None) -> dict[str, Any]:
    """The changes to a recipe, as `Recipe.but` takes them; none for None. Raises RecipeError for an unknown name."""
    if name is None:
        return {}
    if name not in DOMAINS:
        raise RecipeError(unknown("kind of views", name, list(DOMAINS)))
    changes = DOMAINS[name].changes
    return {f"data.views.{view}.{setting}": value for view in (0, 1) for setting, value in changes.items()}
