"""Parts that several metrics need."""

from collections.abc import Sized

import numpy as np
from jaxtyping import Float64

from moco.data.sources.images import DataError


def check_one_for_each(results: Sized, scenes: Sized) -> None:
    """Raise DataError unless there is one result for each image."""
    if len(results) != len(scenes):
        raise DataError(f"{len(results)} results for {len(scenes)} images: expected one for each")


def mean_of_known(values: Float64[np.ndarray, "..."]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
