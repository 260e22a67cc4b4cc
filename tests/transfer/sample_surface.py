"""A body surface in the formats of the true one."""

import pickle
from pathlib import Path

import numpy as np
import scipy.io

SIDE = 6  # of the grid of U and V on each part


def positions() -> tuple[np.ndarray, ...]:
    """Part, U, V and a place in space of each vertex: parts are squares of 0.5 m beside each other."""
    part, row, column = (grid.reshape(-1) for grid in np.mgrid[1:25, :SIDE, :SIDE])
    u, v = row / (SIDE - 1), column / (SIDE - 1)
    return part, u, v, np.stack([part + 0.5 * u, 0.5 * v], axis=1)


def write_surface(folder: Path) -> np.ndarray:
    """The three files; the condensed distances."""
    part, u, v, places = positions()
    apart = np.linalg.norm(places[:, None] - places[None], axis=2).astype(np.float32)
    condensed = apart[np.tril_indices(len(part), -1)]
    scipy.io.savemat(
        folder / "SMPL_subdiv.mat", {"U_subdiv": u[:, None], "V_subdiv": v[:, None], "Part_ID_subdiv": part[None]}
    )
    scipy.io.savemat(folder / "SMPL_SUBDIV_TRANSFORM.mat", {"index": np.arange(1, len(part) + 1)[:, None]})
    (folder / "Pdist_matrix.pkl").write_bytes(pickle.dumps({"Pdist_matrix": condensed[:, None]}, protocol=4))
    return condensed
