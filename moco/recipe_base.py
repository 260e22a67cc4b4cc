"""The base class of recipes: change settings, write as JSON, read back.

`recipe.but(name, {"dotted.field": value})` derives a recipe from another. The command line's `--set` calls it too.
"""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError

from moco.recipe_error import RecipeError, in_words, unknown
from moco.recipe_specs import Spec
from moco.schedule import ScheduleKind
from moco.text import message_of

Same = TypeVar("Same", bound="RecipeBase")

LONGEST = 2**20  # [bytes] of a recipe in a file


class RecipeBase(Spec):
    """A frozen set of settings with a name. Every field of a subclass needs a default."""

    name: str
    source: str = ""  # publication or code that the numbers are from
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0

    def but(
        self: Same, name: str | None = None, changes: dict[str, Any] | None = None, /, *, source: str | None = None
    ) -> Same:
        """This recipe with other values for some fields: `but("long", {"optim.epochs": 800})`.

        Raises:
            RecipeError: an unknown field (similar ones are listed), a wrong type, or settings that do not fit together.
        """
        tree = self.model_dump()
        tree["name"] = name or self.name
        tree["source"] = self.source if source is None else source
        for dotted, value in (changes or {}).items():
            tree = _with_value(tree, dotted, value, of=self)
        return type(self)._validate(tree)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls: type[Same], text: str) -> Same:
        """The recipe that `to_json` wrote. Raises RecipeError."""
        try:
            tree = json.loads(text, object_pairs_hook=_without_duplicates)
        except RecipeError:
            raise
        except (json.JSONDecodeError, RecursionError) as error:
            raise RecipeError(f"a recipe must be JSON: {error}") from None
        except ValueError:
            raise RecipeError("a recipe cannot have a number of more than 4,300 digits") from None
        return cls._validate(tree)

    @classmethod
    def read(cls: type[Same], file: Path) -> Same:
        """The recipe in a file. Raises RecipeError, which names the file."""
        try:
            with file.open("rb") as content:
                text = content.read(LONGEST + 1)
            if len(text) > LONGEST:
                raise RecipeError(f"expected a file of at most {LONGEST:,} bytes")
            return cls.from_json(text.decode())
        except (OSError, UnicodeDecodeError, RecipeError) as error:
            raise RecipeError(f"{file} cannot be used as a recipe: {message_of(error)}") from None

    def fields(self) -> dict[str, Any]:
        """Every setting by its dotted name, in order."""
        return _flattened(self)

    @classmethod
    def check_settings(cls, changes: dict[str, Any]) -> None:
        """Raise RecipeError for settings that are wrong in any recipe: unknown names, values of a wrong type or range.

        Whether settings fit together depends on the recipe; `but` checks that.
        """
        base = cls(name="default")
        tree = base.model_dump()
        for dotted, value in changes.items():
            tree = _with_value(tree, dotted, value, of=base)
        try:
            cls.model_validate(tree)
        except ValidationError as error:
            if problems := [one for one in error.errors() if one["loc"]]:
                raise RecipeError(cls._message(problems)) from None

    @classmethod
    def _validate(cls: type[Same], tree: Any) -> Same:
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise RecipeError(cls._message(error.errors())) from None

    @classmethod
    def _message(cls, problems: list[Any]) -> str:
        names = _all_names(cls(name="default"))
        return "; ".join(in_words(problem, names) for problem in problems)


def diff(a: RecipeBase, b: RecipeBase) -> list[str]:
    """One line for each setting that differs: `optim.epochs: 200 -> 20`; one for a schedule, if its kind differs."""
    left, right = _flattened(a, whole=ScheduleKind), _flattened(b, whole=ScheduleKind)
    missing = object()
    lines: list[str] = []
    for name in dict.fromkeys([*left, *right]):
        one, other = left.get(name, missing), right.get(name, missing)
        if one != other:
            both = isinstance(one, ScheduleKind) and isinstance(other, ScheduleKind)
            lines += _diff_of_schedules(name, one, other) if both else [_change(name, left, right)]
    return lines


def _diff_of_schedules(name: str, one: ScheduleKind, other: ScheduleKind) -> list[str]:
    """One line in words, or one for each field if only numbers differ that the words do not tell."""
    left, right = _flattened(one, f"{name}."), _flattened(other, f"{name}.")
    changed = [field for field in dict.fromkeys([*left, *right]) if left.get(field) != right.get(field)]
    if len(changed) == 1 or one.describe() == other.describe():
        return [_change(field, left, right) for field in changed]
    return [f"{name}: {one.describe()} -> {other.describe()}"]


def _change(name: str, left: dict[str, Any], right: dict[str, Any]) -> str:
    return f"{name}: {left.get(name, '-')} -> {right.get(name, '-')}"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises RecipeError if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name in found if [other for other, _ in pairs].count(name) > 1)
        raise RecipeError(f"'{twice}' is set twice: remove one")
    return found


def _dumped(value: Any) -> Any:
    """`value` as model_dump would return it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return tuple(_dumped(item) for item in value)
    return dict(vars(value)) if hasattr(value, "__pydantic_fields__") else value


def _children(node: Any) -> dict[str, Any]:
    if isinstance(node, BaseModel):
        return {name: getattr(node, name) for name in type(node).model_fields}
    if hasattr(node, "__pydantic_fields__"):
        return {name: getattr(node, name) for name in node.__pydantic_fields__}
    if isinstance(node, tuple) and any(isinstance(item, BaseModel) for item in node):
        return {str(i): item for i, item in enumerate(node)}
    return {}


def _flattened(node: Any, prefix: str = "", *, whole: type | tuple[()] = ()) -> dict[str, Any]:
    """The settings in `node` by dotted name. Nodes of the type `whole` count as one setting."""
    found: dict[str, Any] = {}
    for name, child in _children(node).items():
        is_group = bool(_children(child)) and not isinstance(child, whole)
        found |= _flattened(child, f"{prefix}{name}.", whole=whole) if is_group else {prefix + name: child}
    return found


def _all_names(node: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, child in _children(node).items():
        names += [prefix + name, *_all_names(child, f"{prefix}{name}.")]
    return names


def _replaced(tree: Any, path: list[str], value: Any) -> Any:
    """A dumped recipe with `value` at `path`. Raises LookupError or ValueError if there is no such path."""
    if not path:
        return value
    name, *rest = path
    if isinstance(tree, dict):
        branches = cast("dict[str, Any]", tree)
        return branches | {name: _replaced(branches[name], rest, value)}
    if isinstance(tree, tuple) and 0 <= int(name) < len(items := cast("tuple[Any, ...]", tree)):
        return (*items[: int(name)], _replaced(items[int(name)], rest, value), *items[int(name) + 1 :])
    raise LookupError(name)


def _with_value(tree: Any, dotted: str, value: Any, *, of: RecipeBase) -> Any:
    """`tree`, the dump of `of`, with another value for a field. Raises RecipeError if there is no such field."""
    try:
        return _replaced(tree, dotted.split("."), _dumped(value))
    except (LookupError, ValueError):
        raise RecipeError(unknown("setting", dotted, _all_names(of))) from None
