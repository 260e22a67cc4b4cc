"""The checks of types and shapes that all tests run with find what is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beartype
import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeException
from jaxtyping import Float
from torch import Tensor
from type_checks import decorate

from moco.method.contrast import unit
from moco.rng import fold


def checked(function: Any) -> Any:
    return decorate(function, typechecker=beartype.beartype)


@checked
def double(x: int) -> str:
    return 2 * x  # pyright: ignore[reportReturnType]


@checked
def product(a: Float[Tensor, "n d"], b: Float[Tensor, "d m"], transposed: bool = False) -> Float[Tensor, "n m"]:
    return (a @ b).T if transposed else a @ b


@checked
def rows(a: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, " d"]]:
    yield from a


@checked
@dataclass
class Pair:
    one: Float[Tensor, " n"]
    other: Float[Tensor, " n"]

    @checked
    def with_other(self, other: "Pair") -> "Pair":
        return Pair(self.one, other.other)


A, B = torch.zeros(2, 3), torch.zeros(3, 4)
WRONG = {
    "the type of an argument": lambda: double("a"),
    "the type of a result": lambda: double(1),
    "the number of axes": lambda: product(A, B[0]),
    "an axis that two arguments share": lambda: product(A, A),
    "the kind of numbers": lambda: product(A.int(), B),
    "the shape of a result": lambda: product(A, B, transposed=True),
    "the shape that a generator is called with": lambda: rows(A[0]),
    "an axis of the fields of a dataclass": lambda: Pair(A[0], B[0]),
    "the shape of an argument of moco": lambda: unit(A[0]),
    "the type of an argument of moco": lambda: fold("a"),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_found(wrong):
    with pytest.raises((BeartypeException, jaxtyping.TypeCheckError)):
        WRONG[wrong]()


def test_moco_has_these_checks_and_not_those_of_jaxtyping():
    assert fold.__code__ is double.__code__


def test_right_calls_pass():
    assert torch.equal(product(A, B), torch.zeros(2, 4))
    assert torch.equal(product(A, B[:, :2], transposed=True), torch.zeros(2, 2))
    assert len(list(rows(A))) == 2
    assert torch.equal(Pair(A[0], A[1]).with_other(Pair(A[0], A[0])).other, A[0])
    assert unit(A + 1).shape == A.shape


def test_axes_of_one_call_are_not_those_of_another():
    assert product(A, product(B, torch.zeros(4, 4))).shape == (2, 4)  # n and d are 3 and 4 inside, 2 and 3 outside


def test_without_shape_checks_the_function_is_called_as_it_is(without_shape_checks):
    assert double("a") == "aa"
