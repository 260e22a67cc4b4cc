"""Explain a recipe: the source of each number, deviations of this project, and results that others published."""

import itertools
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moco.recipe import Recipe, RecipeError, unknown
from moco.recipes import ORIGINS, RECIPES, named
from moco.recipes.auto import FITTED, WHAT, auto_origin, example
from moco.recipes.sources_of_numbers import DEFAULTS, Origin, Published, idle_settings, settings_of, value_text
from moco.text import TEXT_WIDTH, columns, plural

Lineage = list[tuple[Origin, dict[str, object]]]
IMAGENET = 1_281_167  # images of ImageNet-1k's training set


@dataclass(frozen=True)
class Setting:
    """One number of a recipe."""

    name: str  # dotted; * means both views
    value: str
    source: str
    changed: str | None = None  # the value in the original recipe of that name, if it differs


@dataclass(frozen=True)
class Explanation:
    """A recipe with its sources."""

    recipe: Recipe
    settings: tuple[Setting, ...]  # those that have an effect
    idle: tuple[str, ...]  # settings without effect because of others
    deviations: dict[str, str]  # from the sources, by setting
    published: tuple[Published, ...]  # results that others published for the original recipe
    sanity: dict[str, str]  # what to expect of a run

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "recipe": json.loads(self.recipe.to_json()),
            "published": [one._asdict() for one in self.published],
        }

    def __str__(self) -> str:
        changed = sum(setting.changed is not None for setting in self.settings)
        blocks = [
            textwrap.fill(
                f"{self.recipe.name}: {self.recipe.source or 'no source'}", TEXT_WIDTH, break_on_hyphens=False
            )
        ]
        if changed:
            blocks[0] += f"\n{plural(changed, 'setting')} changed here"
        blocks.append(columns([("setting", "value", "source"), *self._rows()], widest=(TEXT_WIDTH, 19)))
        if self.idle:
            blocks.append(
                textwrap.fill(f"without effect here: {', '.join(self.idle)}", TEXT_WIDTH, break_on_hyphens=False)
            )
        if self.deviations:
            blocks.append("where this project deviates\n" + columns(list(self.deviations.items())))
        if self.published:
            cells = [(one.measure, f"{one.value:g}", one.source) for one in self.published]
            blocks.append("published by others, not measured here [%]\n" + columns(cells))
        blocks.append("to expect of a run\n" + columns(list(self.sanity.items())))
        return "\n\n".join(blocks)

    def _rows(self) -> list[tuple[str, str, str]]:
        """Name, value and source of each setting. A source that several settings in a row share is printed once."""
        sources = [setting.source for setting in self.settings]
        texts = ["as above" if source == above else source for above, source in itertools.pairwise(["", *sources])]
        return [(setting.name, setting.value, text) for setting, text in zip(self.settings, texts, strict=True)]


def explain(what: str) -> Explanation:
    """Explain a recipe given by name, recipe.json or run folder; for `auto`, an example. Raises RecipeError."""
    path = Path(what)
    file = path / "recipe.json" if path.is_dir() else path
    if what in RECIPES:
        recipe = named(what)
    elif what == "auto":
        recipe = example()
    elif file.is_file():
        recipe = Recipe.read(file)
    elif path.is_dir() or what.endswith(".json"):
        raise RecipeError(f"expected the name of a recipe, a recipe.json or a run folder, and there is no file {file}")
    else:
        raise RecipeError(unknown("recipe", what, ["auto", *RECIPES]))
    return explain_recipe(recipe)


def list_recipes() -> list[dict[str, Any]]:
    """Every recipe: its name, a description, and its first published result."""
    rows: list[dict[str, Any]] = [{"name": "auto", "what": WHAT, "published": None}]
    for name, recipe in RECIPES.items():
        what = (recipe.__doc__ or "").strip().splitlines()[0]
        published = ORIGINS[name].published[:1]
        rows.append({"name": name, "what": what, "published": published[0]._asdict() if published else None})
    return rows


def explain_recipe(recipe: Recipe) -> Explanation:
    """The sources of `recipe`, and its changes to the original recipe of that name."""
    origin = ORIGINS.get(recipe.name, auto_origin(recipe) if recipe.name == "auto" else None)
    line, original = lineage(origin) if origin else [], _original(recipe)
    now, then, without = settings_of(recipe), settings_of(original or recipe), idle_settings(recipe)
    rows: list[Setting] = []
    deviations: dict[str, str] = {}
    for name, value in now.items():
        if name in without:
            continue
        if origin is None:
            rows.append(Setting(name, value_text(value), f"not among the recipes here: {recipe.source or 'no source'}"))
        elif value == then[name] or (name == "compute.threads" and then[name] is None):  # a run fills in the threads
            source = find_entry(line, lambda one: one.sources, name, then[name])
            deviation = find_entry(line, lambda one: one.deviations, name, then[name])
            rows.append(Setting(name, value_text(value), source[1] if source else "no source"))
            deviations |= dict([deviation] if deviation else [])
        else:
            change = f"changed here: {value_text(then[name])} -> {value_text(value)}"
            rows.append(Setting(name, value_text(value), change, changed=value_text(then[name])))
    published = () if origin is None else origin.published
    return Explanation(recipe, _merge_views(rows), _idle_names(now, without), deviations, published, sanity(recipe))


def lineage(origin: Origin) -> Lineage:
    """`origin`, the origin of its base, and so on to the defaults. Beside each, the settings of its base."""
    if origin is DEFAULTS:
        return [(origin, {})]
    if origin.base is None:
        return [(origin, settings_of(Recipe(name="defaults"))), (DEFAULTS, {})]
    return [(origin, settings_of(named(origin.base))), *lineage(ORIGINS[origin.base])]


def find_entry(
    line: Lineage, table: Callable[[Origin], dict[str, str]], name: str, value: object
) -> tuple[str, str] | None:
    """Find the entry on a setting in a table of the lineage. Returns (key, text), or None.

    Args:
        table: selects `sources` or `deviations` of an origin.
        value: entries of a base that has another value do not count.
    """
    for origin, of_base in line:
        found = _longest_prefix(table(origin), name)
        if found is not None:
            return found, table(origin)[found]
        if name not in of_base or of_base[name] != value:  # the base has another value: its entries do not apply
            return None
    return None


def sanity(recipe: Recipe) -> dict[str, str]:
    """What to expect of a run: loss and accuracy at chance level, memory of the dictionary, and time scales."""
    method, dim = recipe.method, recipe.encoder.dim
    found = {
        "loss at chance": f"{recipe.collapse_level:.2f} nats (all keys alike); a collapsed encoder stays there",
        "contrastive accuracy at chance": f"{100 / recipe.candidates:.2g} % (1 of {recipe.candidates:,} keys)",
    }
    if method.dictionary == "queue" and method.size is not None:
        found["dictionary"] = f"{method.size:,} x {dim} float32 = {method.size * dim * 4 / 2**20:.3g} MiB on each rank"
        filled = f"{method.size / recipe.keys_per_step:,.4g} steps"
        found["a key's age, at most"] = f"{filled}; until then the queue still has random keys, and the loss is low"
    elif method.dictionary == "bank":
        found["dictionary"] = f"images x {dim} float32; ImageNet: {IMAGENET * dim * 4 / 2**20:.0f} MiB on each rank"
    else:
        size = recipe.optim.batch_size * dim * 4 / 2**20
        found["dictionary"] = f"{recipe.optim.batch_size:,} x {dim} float32 = {size:.3g} MiB, during a step"
    if method.key_encoder == "momentum":
        m = method.momentum(0, recipe.optim.epochs)
        found["f_k looks back"] = (
            f"1 / (1 - m) = {1 / (1 - m):,.4g} steps" if m < 1 else "at its initial weights only: m = 1"
        )
    return found


def _original(recipe: Recipe) -> Recipe | None:
    """The original recipe of that name, or None. For `auto`, its base with this recipe's fitted settings."""
    if recipe.name != "auto":
        return named(recipe.name) if recipe.name in RECIPES else None
    values = settings_of(recipe)
    fitted = {name: value for name, value in values.items() if _longest_prefix(FITTED, name)}
    return named(str(auto_origin(recipe).base)).but("auto", fitted)


def _longest_prefix(table: dict[str, str], name: str) -> str | None:
    """The longest key of `table` that equals `name` or is a prefix of it, ignoring the number of the view."""
    plain = name.replace("views.0", "views").replace("views.1", "views")
    fits = [key for key in table if f"{plain}.".startswith(f"{key}.")]
    return max(fits, key=len, default=None)


def _merge_views(rows: list[Setting]) -> tuple[Setting, ...]:
    """Merge the rows of the two views where they are equal."""
    texts = {row.name: (row.value, row.source) for row in rows}
    merged: list[Setting] = []
    for row in rows:
        first, second = (row.name.replace("views.1", "views.0"), row.name.replace("views.0", "views.1"))
        if first == second or texts.get(first) != texts.get(second):
            merged.append(row)
        elif row.name == first:
            merged.append(Setting(row.name.replace("views.0", "views.*"), row.value, row.source, row.changed))
    return tuple(merged)


def _idle_names(names: Iterable[str], without: set[str]) -> tuple[str, ...]:
    """The names that are in `without`. A view whose settings all are is named once, as a whole."""
    quiet: dict[str, None] = {}
    for name in names:
        view = name[: len("data.views.0")]
        whole = all(other in without for other in names if other.startswith(f"{view}."))
        if name in without:
            quiet[view if name.startswith("data.views.") and whole else name] = None
    return tuple(quiet)
