"""The means of the metrics over the steps since the last record, which a run logs."""

import math
from typing import Any

import torch
from torch import Tensor

from moco.distributed import gather


class MetricWindow:
    """The metrics of all ranks in the steps since the last record.

    It is part of a checkpoint, so that a resumed run logs the same means as an uninterrupted one. A mean does not
    depend on when the window is gathered or saved, because its sum is rounded only once (`math.fsum`).
    """

    def __init__(self) -> None:
        self._own: list[tuple[int, dict[str, Tensor]]] = []  # step and metrics of this rank, on the device
        self._all: dict[str, list[float]] = {}  # of all ranks, once gathered

    def add(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Add the metrics of a step: scalars, with the same names in every step. Does not wait for the device."""
        self._own.append((step, metrics))

    def discard(self, step: int) -> None:
        """Remove a step that was skipped."""
        self._own = [one for one in self._own if one[0] != step]

    def gather(self, until: int) -> None:
        """Gather the metrics of all ranks for the steps up to `until`. Every rank calls this."""
        rows = [metrics for step, metrics in self._own if step <= until]
        self._own.clear()
        if rows:
            stacked = torch.stack(
                [torch.stack([x.detach().float() for x in row.values()]) for row in rows]
            )  # n x names
            for name, values in zip(rows[0], gather(stacked).T.tolist(), strict=True):
                self._all.setdefault(name, []).extend(values)

    def pop_means(self) -> dict[str, float]:
        """Return the mean of each metric over the gathered steps and ranks ({} without steps), and empty the window."""
        gathered, self._all = self._all, {}
        return {name: math.fsum(values) / len(values) for name, values in gathered.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"gathered": self._all}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._own, self._all = [], {name: list(values) for name, values in state_dict["gathered"].items()}
