"""The error for a recipe that cannot run, and its message."""

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

NO_SCHEDULE = ("model_attributes_type", "union_tag_invalid", "union_tag_not_found")  # pydantic's, where one is expected
LONGEST_SHOWN = 200  # [characters] of a value in a message


class RecipeError(ValueError):
    """A recipe that cannot run: says what was expected, what came, and what to do."""


def unknown(what: str, name: str, known: list[str]) -> str:
    """The message for an unknown name, with up to three similar ones, or else all known names."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    tail = name.rsplit(".", 1)[-1]
    near = near or [one for one in known if one.rsplit(".", 1)[-1] == tail][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known)}"
    return f"unknown {what} '{name}': {hint}"


def in_words(problem: "ErrorDetails", names: list[str]) -> str:
    """A validation error of pydantic as a message: the setting, what was expected, and the value.

    Args:
        names: the names of all settings.
    """
    kinds = ("constant", "steps", "decay", "cosine")
    where = ".".join(str(step) for step in problem["loc"] if step not in kinds)
    if problem["type"] == "extra_forbidden":
        return unknown("setting", where, names)
    if problem["type"] in NO_SCHEDULE:
        came = shorten(problem["input"])
        return f"{where} must be a number or a schedule (a kind with its fields), got {came}"
    if problem["type"] == "value_error":  # a message of our own, which says what came
        said = problem["msg"].removeprefix("Value error, ")
        return said if said.startswith(where) else f"{where}: {said}"
    if where:
        return f"{where}: {problem['msg'].lower()}, got {shorten(problem['input'])}"
    return problem["msg"]


def shorten(value: Any) -> str:
    """`value` for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "a number of more than 4,300 digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"
