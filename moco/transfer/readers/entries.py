"""Read annotation files as checked values. Every error is an AnnotationError with the file and the entry."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float64

from moco.data.sources.images import DataError
from moco.text import escape, one_line

LARGEST = 1e7  # absolute value of a coordinate, at most: larger than any image, and exact in float32


class AnnotationError(DataError):
    """An annotation that cannot be used: its `file`, the `entry` in it, and the `problem`."""

    def __init__(self, file: Path, entry: str, problem: str):
        where = f"{escape(str(file))}, {one_line(entry)}" if entry else escape(str(file))
        super().__init__(f"{where}: {one_line(problem)}")
        self.file, self.entry, self.problem = file, entry, problem


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises AnnotationError."""
    return read_bytes(path).decode("utf-8-sig", "surrogateescape")


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises AnnotationError if it is no regular file or cannot be read."""
    if not path.is_file():
        problem = "not a regular file" if path.exists() else "no such file"
        raise AnnotationError(path, "", f"{problem}: expected an annotation file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise AnnotationError(path, "", f"cannot be read ({error.strerror})") from error


def read_json_object(path: Path) -> "JsonObject":
    """The JSON object in a file. Raises AnnotationError."""
    try:
        value = json.loads(read_bytes(path))
    except AnnotationError:
        raise
    except (ValueError, RecursionError) as error:  # bad JSON or UTF-8, a number of thousands of digits, deep nesting
        raise AnnotationError(path, "", f"not valid JSON ({_short(str(error))})") from error
    return JsonObject(value, path, "")


class JsonObject:
    """One JSON object of a file. Every method raises AnnotationError if a value is missing or has another type."""

    def __init__(self, value: Any, file: Path, name: str):
        self.file, self.name = file, name
        if not isinstance(value, dict):
            self.fail(f"expected a JSON object, got {describe_value(value)}")
        self.value: dict[str, Any] = value

    def fail(self, problem: str) -> NoReturn:
        raise AnnotationError(self.file, self.name, problem)

    def has(self, key: str) -> bool:
        """Whether the key has a value other than null."""
        return self.value.get(key) is not None

    def raw(self, key: str) -> Any:
        """The value of any type."""
        if not self.has(key):
            self.fail(f"has no {key!r}")
        return self.value[key]

    def number(self, key: str) -> float:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
            self.fail(f"{key} must be a finite number, got {describe_value(value)}")
        return float(value)

    def integer(self, key: str, *, least: int = -(2**53), most: int = 2**53) -> int:
        value = self.raw(key)
        whole = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value.is_integer())
        if isinstance(value, bool) or not whole or not least <= value <= most:
            self.fail(f"{key} must be a whole number{_between(least, most)}, got {describe_value(value)}")
        return int(value)

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str) or not value:
            self.fail(f"{key} must be text, got {describe_value(value)}")
        return value

    def identity(self, key: str = "id") -> int | str:
        """An id: the number or text by which other entries refer to this one."""
        return self.text(key) if isinstance(self.raw(key), str) else self.integer(key)

    def list(self, key: str) -> "list[Any]":
        value = self.raw(key)
        if not isinstance(value, list):
            self.fail(f"{key} must be a list, got {describe_value(value)}")
        return value

    def numbers(self, key: str, length: int | None = None) -> Float64[np.ndarray, "n"]:
        """A list of finite numbers."""
        return self.check_numbers(self.list(key), key, length)

    def check_numbers(self, values: Any, key: str, length: int | None = None) -> Float64[np.ndarray, "n"]:
        """`values`, a part of the value of `key`, as an array of finite numbers."""
        expected = f"{key} must be a list of {'' if length is None else f'{length} '}finite numbers"
        if not isinstance(values, list):
            self.fail(f"{expected}, got {describe_value(values)}")
        if length is not None and len(values) != length:
            self.fail(f"{expected}, got {len(values)} values")
        try:
            array = np.array(values) if values else np.zeros(0)
        except (ValueError, OverflowError):  # lists of different lengths, numbers too large
            array = np.zeros(0, dtype=object)
        if array.ndim != 1 or array.dtype.kind not in "iuf" or bool in set(map(type, values)):
            self.fail(f"{expected}, got {describe_value(values)}")
        array = array.astype(np.float64)
        if not (np.abs(array) <= LARGEST).all():  # false for NaN
            self.fail(f"{expected} of at most {LARGEST:,.0f}, got {describe_value(values)}")
        return array

    def entries(self, key: str, name: str) -> "Iterator[JsonObject]":
        """The objects of a list. Messages name each by its id, or by its position if it has no id."""
        for place, value in enumerate(self.list(key)):
            given = value.get("id") if isinstance(value, dict) else None
            plain = isinstance(given, int | str) and not isinstance(given, bool)
            yield JsonObject(
                value, self.file, f"{name} {_short(str(given))}" if plain else f"{name} number {place + 1}"
            )


def describe_value(value: Any) -> str:
    """A short description of any value, for messages."""
    if isinstance(value, dict):
        return "a JSON object"
    if isinstance(value, list):
        return f"a list ({_short(repr(value[:8]))})"
    if value is None:
        return "null"
    try:
        return _short(repr(value))
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _between(least: int, most: int) -> str:
    if most == 2**53:
        return "" if least == -(2**53) else f" of at least {least}"
    return f" from {least} to {most}"
