"""Maps: places of images that depend on the data and the seed only."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from moco.atlas import layout as module
from moco.atlas.layout import FEWEST_FOR_MAP, layout, pca


def clusters(n: int, dim: int = 16, kinds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features in separate clusters, and the cluster of each."""
    rng = np.random.default_rng(0)
    which = np.arange(n) % kinds
    return (np.eye(kinds, dim)[which] + rng.normal(0, 0.05, (n, dim))).astype(np.float32), which


@pytest.fixture
def without_pacmap(monkeypatch):
    monkeypatch.setattr(module, "_import_pacmap", lambda: None)


def test_the_first_principal_components_are_those_of_scikit_learn_but_for_their_sign():
    x = np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32) * np.arange(1, 8, dtype=np.float32)
    expected = PCA(2).fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(np.abs(pca(x)), np.abs(expected), rtol=1e-4, atol=1e-4)


def test_without_pacmap_the_map_is_pca_and_says_so(without_pacmap):
    found = layout(clusters(60)[0])
    assert found.method == "PCA"
    assert "pip install" in found.note


@pytest.mark.parametrize("n", [0, 1, 2, FEWEST_FOR_MAP - 1])
def test_few_images_have_a_map(n):
    found = layout(clusters(n)[0])
    assert found.xy.shape == (n, 2)
    assert found.method == "PCA"
    assert np.isfinite(found.xy).all()


def test_identical_images_are_at_one_place():
    found = layout(np.ones((100, 8), dtype=np.float32))
    np.testing.assert_array_equal(found.xy, np.zeros((100, 2)))


def test_a_map_lies_in_the_square_from_minus_1_to_1(without_pacmap):
    xy = layout(clusters(60)[0]).xy
    assert np.abs(xy).max() == pytest.approx(1)
    np.testing.assert_allclose(xy.min(axis=0), -xy.max(axis=0), atol=1e-6)


def test_the_length_of_a_feature_does_not_count(without_pacmap):
    x = clusters(40)[0]
    scale = np.linspace(1, 9, 40, dtype=np.float32)[:, None]
    np.testing.assert_allclose(layout(x).xy, layout(x * scale).xy, atol=1e-5)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        layout(np.full((4, 2), np.nan, dtype=np.float32))


def test_pacmap_keeps_clusters_apart_and_gives_the_same_map_with_one_and_two_threads(tmp_path: Path):
    pytest.importorskip("pacmap", reason="needs the extra `atlas`")
    code = (
        "import numpy as np, sys; sys.path[:0] = sys.argv[2:]; from moco.atlas.layout import layout;"
        "x = np.load(sys.argv[1] + '/x.npy'); found = layout(x); assert found.method.startswith('PaCMAP');"
        "sys.stdout.buffer.write(found.xy.tobytes())"
    )
    x, which = clusters(300, dim=128)
    np.save(tmp_path / "x.npy", x)
    root = str(Path(module.__file__).parents[2])
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), root], capture_output=True, check=True, timeout=200,
            env=os.environ | {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]
    xy = np.frombuffer(found[0], dtype=np.float32).reshape(-1, 2)
    centres = np.stack([xy[which == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, which)
