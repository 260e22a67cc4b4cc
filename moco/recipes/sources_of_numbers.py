"""The sources of a recipe's numbers, as data. Every setting has a source or is marked as this project's choice."""

from dataclasses import dataclass, field
from typing import NamedTuple

from moco.recipe import Recipe
from moco.schedule import Schedule, ScheduleKind


class Published(NamedTuple):
    """A result that others have published for a recipe. This project did not measure it."""

    measure: str
    value: float  # [percent]
    source: str


@dataclass(frozen=True)
class Origin:
    """The sources of one recipe's settings, its deviations from them, and published results.

    A key is the dotted name of a setting without the number of the view (`data.views.blur`), or a prefix of it
    (`data.views`); the longest match counts. A setting without a key that has the value of `base` has its source too.
    """

    sources: dict[str, str]
    base: str | None = None  # the name of the recipe that this one derives from; None: the defaults
    deviations: dict[str, str] = field(default_factory=dict)  # keys as in `sources`
    published: tuple[Published, ...] = ()


DEFAULTS = Origin(
    {
        "seed": "this project's choice: any number",
        "encoder.channels": "the images: RGB",
        "data.key_views": "this project's choice: one view of the key, as in the paper",
        "data.small_crops": "this project's choice: one view of the query, as in the paper",
        "data.small_area": "this project's choice: docs/method.md",
        "data.small_size": "this project's choice: docs/method.md",
        "data.groups": "this project's choice: every other key is a negative, as in the paper",
        "data.bands": "this project's choice: 8-bit RGB",
        "data.views.jitter.bands": "this project's choice: bands have no brightness of their own",
        "data.shrink": "this project's choice: images as they are",
        "data.decode": "this project's choice: all pixels",
        "data.order": "this project's choice: every order of an epoch is equally likely, as in the paper's code",
        "optim.accumulate": "this project's choice: no accumulation",
        "compute.channels_last": "this project's choice: a memory layout, which changes only rounding",
        "compute.one_pass": "this project's choice: the order of the work, which changes only rounding",
        "compute.deal_keys": "this project's choice: ranks exchange the views of the keys, as in the paper",
        "compute.compile": "this project's choice: torch's default",
        "compute.cuda_graphs": "this project's choice: torch's default",
        "compute.threads": "this project's choice: torch's default when a run starts; a resumed run uses the same",
    }
)


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Every setting by its dotted name, in order. A schedule is one setting; `name` and `source` are left out."""
    schedules: dict[str, Schedule] = {"method.momentum": recipe.method.momentum, "optim.lr": recipe.optim.lr}
    found: dict[str, object] = {}
    for name, value in recipe.fields().items():
        whole = next((one for one in schedules if name.startswith(f"{one}.")), None)
        found[whole or name] = schedules[whole] if whole else value
    return {name: value for name, value in found.items() if name not in ("name", "source")}


def value_text(value: object) -> str:
    """The value of a setting as text."""
    match value:
        case ScheduleKind():
            return value.describe()
        case tuple():
            return ", ".join(value_text(one) for one in value)
        case float():
            return f"{value:.4g}"
        case None:
            return "none"
        case _:
            return str(value)


def idle_settings(recipe: Recipe) -> set[str]:
    """The settings that have no effect because of others. Example: bank_momentum, if the dictionary is a queue."""
    encoder, method, optim, data = recipe.encoder, recipe.method, recipe.optim, recipe.data
    mlps = encoder.head.startswith("projector") or method.predictor != "none"
    conditions = {
        ("encoder.stem", "encoder.width", "encoder.dilate_last", "encoder.zero_init"): encoder.name.startswith("resne"),
        ("encoder.patch", "encoder.position", "encoder.freeze_patch"): encoder.name.startswith("vit_"),
        ("encoder.hidden", "encoder.head_bn"): mlps,
        ("method.negatives", "method.bank_momentum"): method.dictionary == "bank",
        ("method.momentum",): method.key_encoder == "momentum",
        ("method.bn_groups",): method.bn in ("shuffle", "split"),
        ("optim.momentum",): optim.optimizer != "adamw",
        ("data.small_area", "data.small_size"): data.small_crops > 0,
        ("optim.trust",): optim.optimizer == "lars",
        ("optim.cached",): optim.accumulate > 1,
    }
    found = {name for names, matters in conditions.items() if not matters for name in names}
    for i, view in enumerate(data.views):
        here, jitter = f"data.views.{i}.", ("brightness", "contrast", "saturation", "hue")
        found |= {f"{here}jitter.{name}" for name in jitter if view.jitter.p == 0}
        found |= {f"{here}blur_sigma"} if view.blur == 0 else set()
        found |= {f"{here}grey_first"} if view.grey == 0 else set()
    if method.dictionary == "bank":  # one view of each image
        found |= {name for name in settings_of(recipe) if name.startswith("data.views.1.")}
    return found
