"""The hash of weights depends on names, dtypes, shapes and values, and on nothing else."""

import pytest
import torch

from moco.weights.content_hash import content_hash

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}


def test_the_hash_does_not_depend_on_order_or_memory_layout():
    other = {name: TENSORS[name].clone() for name in "cba"}
    other["a"] = torch.arange(6.0).reshape(2, 3).T.contiguous().T
    assert content_hash(other) == content_hash(TENSORS)


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.arange(6.0).reshape(3, 2)}, {"a": torch.arange(6.0).reshape(2, 3) + 1e-7},
        {"b": torch.tensor(3, dtype=torch.int32)}, {"b": torch.tensor([3])}, {"d": torch.zeros(0)},
    ],
)  # fmt: skip
def test_any_changed_value_name_or_shape_changes_the_hash(change):
    assert content_hash(TENSORS | change) != content_hash(TENSORS)
