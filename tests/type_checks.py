"""The types and shapes of every call in moco are checked under pytest, as jaxtyping and beartype do, in less time.

`jaxtyped` checks the arguments of a call twice, binds them to names and keeps sizes of axes, also where a signature has
no array: 30 us, against 1 us of beartype alone. Fine-tuning a detector took twice as long with it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping
from jaxtyping import AbstractArray

jaxtyped = jaxtyping.jaxtyped


def resolved(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, with `Any` for a name that is not known yet, such as that of its own class."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # as jaxtyping does
        return {name: _resolved(one, function) for name, one in function.__annotations__.items()}


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    def probe(value: annotation): ...  # pyright: ignore[reportInvalidTypeForm]

    try:
        return get_type_hints(probe, function.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


def has_arrays(annotation: Any) -> bool:
    """Whether an annotation, or a part of it, is an array with axes."""
    if isinstance(annotation, list):  # the arguments of a Callable
        return any(map(has_arrays, annotation))
    is_array = inspect.isclass(annotation) and issubclass(annotation, AbstractArray)
    return is_array or any(map(has_arrays, get_args(annotation)))


def checked(function: Callable[..., Any], typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """The function with types checked, and where its signature has arrays, their shapes."""
    annotations = function.__annotations__
    function.__annotations__ = resolved(function)
    with_shapes = any(map(has_arrays, function.__annotations__.values()))
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if generates and function.__annotations__.get("return") is Any:
        del function.__annotations__["return"]  # old versions of beartype accept no `Any` of a generator
    if with_shapes and generates:
        with_checks = jaxtyped(function, typechecker=typechecker)
    else:
        with_checks = typechecker(function)
        with_checks = jaxtyped(with_checks, typechecker=None) if with_shapes else with_checks
    function.__annotations__ = annotations

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return (function if jaxtyping.config.jaxtyping_disable else with_checks)(*args, **kwargs)

    return call


def decorate(fn: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """What jaxtyping's import hook calls for each function and class of moco, in place of `jaxtyped`."""
    if fn is None:
        return functools.partial(decorate, typechecker=typechecker)
    if getattr(fn, "__no_type_check__", False):
        return fn
    if not inspect.isclass(fn):
        return checked(fn, typechecker)
    if dataclasses.is_dataclass(fn) and "__init__" in vars(fn):
        fn.__init__ = checked(fn.__init__, typechecker)  # pyright: ignore[reportAttributeAccessIssue]
    return fn


jaxtyping.jaxtyped = decorate
