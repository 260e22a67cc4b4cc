"""Mirror the points, parts and coarse masks of persons, for flipped images.

UV_symmetry_transforms.mat, a file of DensePose's authors, has for each part a table of the mirrored U and V, indexed by
V and U. The numbers of the parts and the rule are those of Detectron2's project DensePose.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from moco.transfer.models.densepose import BODY_PARTS, SURFACE_SIDE, SurfacePoints
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.mat import read_cells

FILE = "UV_symmetry_transforms.mat"
STEPS = 255  # of U and V in the tables, from 0 to 1
# The counterpart of each part: 1 and 2 (the torso) are their own, 3 and 4 the hands, and so on in pairs.
OTHER_PART = [0, 1, 2, *(one for left in range(3, BODY_PARTS, 2) for one in (left + 1, left))]
OTHER_COARSE = [0, 1, *(one for left in range(2, 14, 2) for one in (left + 1, left)), 14]  # 1: torso, 14: head


@dataclass(frozen=True)
class BodySymmetry:
    """The mirrored U and V of points, by part, V and U."""

    u: Float32[Tensor, "24 256 256"]
    v: Float32[Tensor, "24 256 256"]

    def mirror(self, points: SurfacePoints) -> SurfacePoints:
        """The annotation of the same person in the flipped image. Points without values in the file are removed."""
        row, column = ((values * STEPS).long().clamp(0, STEPS) for values in (points.v, points.u))
        u, v = (table[points.part - 1, row, column] for table in (self.u, self.v))
        known = u.isfinite() & v.isfinite()
        part = torch.tensor(OTHER_PART)[points.part]
        x, y = SURFACE_SIDE - points.x, points.y
        mask = torch.tensor(OTHER_COARSE, dtype=torch.uint8)[points.mask.flip(1).long()]
        return SurfacePoints(x[known], y[known], part[known], u[known], v[known], mask)


def read_body_symmetry(folder: Path) -> BodySymmetry | None:
    """Read the symmetry from the file in a folder; None if it does not exist.

    Raises:
        AnnotationError: the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    cells = read_cells(file)
    tables: list[Tensor] = []
    for name in ("U_transforms", "V_transforms"):
        shapes = {one.shape for one in cells.get(name, [])}
        if len(cells.get(name, [])) != BODY_PARTS or shapes != {(STEPS + 1, STEPS + 1)}:
            raise AnnotationError(file, name, f"expected {BODY_PARTS} cells of {STEPS + 1} x {STEPS + 1} numbers")
        tables.append(torch.from_numpy(np.stack(cells[name]).astype(np.float32)))
    return BodySymmetry(*tables)
