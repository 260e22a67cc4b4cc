"""Damage files: another value anywhere in nested dicts and lists, or another bit."""

import copy
import random
from typing import Any

VALUES = (
    None, True, -1, 0, 1.5, 1e308, float("nan"), 10**30, "", "text", [], [[]], [None], {}, {"size": [1]}, [[1] * 6],
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path to every place in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inner for place in places(part, (*path, key))]


def put(content: Any, path: tuple, value: Any) -> None:
    """Put a copy of `value` at `path` in nested dicts and lists."""
    parent_of(content, path)[path[-1]] = copy.deepcopy(value)


def parent_of(content: Any, path: tuple) -> Any:
    """The dict or list that has the place `path`."""
    for key in path[:-1]:
        content = content[key]
    return content


def flip_bit(content: bytes, at: int, rng: random.Random) -> bytes:
    """The content with a random bit of the byte at `at` flipped."""
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
