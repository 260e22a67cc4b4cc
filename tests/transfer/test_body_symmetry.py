"""Points on bodies in a mirrored image, and the file that says where they are."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from moco.transfer.body_symmetry import OTHER_COARSE, OTHER_PART, BodySymmetry, read_body_symmetry
from moco.transfer.models.densepose import SurfacePoints
from moco.transfer.models.flip import flip
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.mat import read_cells
from tests.transfer.scenes_of_lvis_and_cityscapes import write_symmetry

# Detectron2's DensePoseTransformData
PARTS = [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23]
COARSE = [0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 14]


def person(part: list[int], u: list[float], v: list[float]) -> SurfacePoints:
    mask = torch.zeros(256, 256, dtype=torch.uint8)
    mask[:, :100] = 2
    at = torch.arange(len(part)).float()
    return SurfacePoints(10 + at, 20 + at, torch.tensor(part), torch.tensor(u), torch.tensor(v), mask)


def test_parts_have_the_counterparts_of_detectron2():
    assert OTHER_PART == PARTS
    assert OTHER_COARSE == COARSE


def test_points_are_looked_up_by_part_v_and_u(tmp_path: Path):
    u, v = write_symmetry(tmp_path)
    symmetry = read_body_symmetry(tmp_path)
    assert symmetry is not None
    found = symmetry.mirror(person([1, 3, 24], [0.0, 0.5, 1.0], [1.0, 0.25, 0.0]))
    places = [(0, 255, 0), (2, int(0.25 * 255), int(0.5 * 255)), (23, 0, 255)]  # part - 1, row of V, column of U
    assert found.u.tolist() == pytest.approx([u[place] for place in places])
    assert found.v.tolist() == pytest.approx([v[place] for place in places])
    assert found.part.tolist() == [1, 4, 23]
    assert found.x.tolist() == [246, 245, 244]
    assert found.y.tolist() == [20, 21, 22]
    assert (found.mask[:, 156:] == 3).all()
    assert (found.mask[:, :156] == 0).all()


def test_mirroring_twice_is_the_person_again():
    """With tables that say that U changes its direction and V stays."""
    grid = torch.linspace(0, 1, 256)
    symmetry = BodySymmetry((1 - grid).expand(24, 256, 256), grid[:, None].expand(24, 256, 256))
    before = person([5, 8, 2], [0.0, 51 / 255, 1.0], [0.0, 102 / 255, 1.0])
    once = symmetry.mirror(before)
    assert once.u.tolist() == pytest.approx([1, 204 / 255, 0])
    for a, b in zip(symmetry.mirror(once), before, strict=True):
        assert torch.allclose(a, b, atol=1 / 255 + 1e-6)


def test_a_point_without_a_place_is_left_out():
    symmetry = BodySymmetry(torch.full((24, 256, 256), torch.nan), torch.zeros(24, 256, 256))
    assert len(symmetry.mirror(person([1], [0.5], [0.5])).x) == 0


def test_a_mirrored_image_mirrors_its_persons():
    symmetry = BodySymmetry(torch.zeros(24, 256, 256), torch.ones(24, 256, 256))
    target = {"boxes": torch.tensor([[2.0, 1, 5, 3]] * 2), "labels": torch.tensor([0, 0]),
              "densepose": [person([3], [0.5], [0.5]), None]}  # fmt: skip
    image = torch.zeros(3, 4, 10, dtype=torch.uint8)
    one, none = flip(image, target, mirror_body=symmetry.mirror)[1]["densepose"]
    assert none is None
    assert one.part.tolist() == [4]
    assert flip(image, target)[1]["densepose"] == [
        None,
        None,
    ]  # nothing is learned from points that are in wrong places


@pytest.mark.parametrize("damage", ["empty", "cut", "few", "size", "numbers", "text"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, damage: str):
    write_symmetry(tmp_path)
    file = tmp_path / "UV_symmetry_transforms.mat"
    cells = np.empty((1, 24), dtype=object)
    for place in range(24):
        cells[0, place] = "text" if damage == "text" else np.zeros((256, 255 if damage == "size" else 256))
    cells = cells[:, :23] if damage == "few" else np.zeros((24, 9)) if damage == "numbers" else cells
    if damage in ("empty", "cut"):
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:100_000])
    else:
        scipy.io.savemat(file, {"U_transforms": cells, "V_transforms": cells})
    with pytest.raises(AnnotationError, match=r"UV_symmetry_transforms\.mat"):
        read_body_symmetry(tmp_path)


def test_without_the_file_there_is_no_symmetry(tmp_path: Path):
    assert read_body_symmetry(tmp_path) is None


def test_cells_are_those_that_scipy_wrote(tmp_path: Path):
    cells = np.empty((2, 3), dtype=object)
    rng = np.random.default_rng(0)
    for place in np.ndindex(2, 3):
        cells[place] = rng.integers(0, 9, (place[0] + 1, place[1] + 2)).astype(("u1", "f8")[place[0]])
    for compressed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", {"c": cells, "plain": np.zeros(3)}, do_compression=compressed)
        found = read_cells(tmp_path / "a.mat")
        assert list(found) == ["c"]
        for a, b in zip(found["c"], cells.ravel(order="F"), strict=True):
            assert np.array_equal(a, b)
