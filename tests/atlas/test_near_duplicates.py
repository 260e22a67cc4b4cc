"""Whitened features, and the threshold that planted copies give."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import moco
from moco.atlas.calibrate import COST, choose_threshold
from moco.atlas.collection import normalize_rows
from moco.atlas.duplicates import find_near_duplicates
from moco.atlas.whitening import FEWEST_FOR_WHITENING, RIDGE, Whitening
from moco.cli import app
from moco.recipe import Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from tests.atlas.samples import make_embedded
from tests.evaluate.samples import DATA, SPEC, trained_encoder


def alike(n: int, dim: int = 12) -> np.ndarray:
    """Features that have one direction in common and differ little: Their cosine similarities are high."""
    rng = np.random.default_rng(0)
    return normalize_rows(
        (4 * np.eye(dim)[0] + rng.normal(size=(n, dim)) * np.linspace(2, 0.2, dim)).astype(np.float32)
    )


def test_whitened_features_have_the_variances_of_the_formula():
    x = alike(5000)
    whitening = Whitening(x)
    y = (x - x.mean(axis=0)) @ whitening._axes
    variances = np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True))
    expected = variances / (variances + RIDGE * variances[-1])
    np.testing.assert_allclose(np.sort(y.var(axis=0)), np.sort(expected), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(whitening(x), axis=1), 1, atol=1e-5)


def test_whitening_tells_copies_from_images_of_one_kind():
    """Copies differ in the directions in which all images differ most, others in many small ones, too."""
    rng, scale, change = np.random.default_rng(0), np.repeat([3, 0.1], [4, 60]), np.repeat([0.9, 0.005], [4, 60])
    first = rng.normal(size=(250, 64)) * scale
    x = normalize_rows(
        np.stack([first, first + rng.normal(size=(250, 64)) * change], 1).reshape(500, 64).astype(np.float32)
    )
    at = np.arange(500)

    def share_whose_copy_is_nearest(y: np.ndarray) -> float:
        return float(((y @ y.T - 2 * np.eye(500)).argmax(axis=1) == at ^ 1).mean())

    assert share_whose_copy_is_nearest(Whitening(x)(x)) > 0.95
    assert share_whose_copy_is_nearest(x) < 0.8


def test_few_features_are_not_whitened():
    x = alike(FEWEST_FOR_WHITENING - 1)
    np.testing.assert_allclose(Whitening(x)(x), x, atol=1e-6)


def test_features_that_are_all_the_same_stay_finite():
    y = Whitening(np.full((60, 4), 0.5, dtype=np.float32))(np.full((60, 4), 0.5, dtype=np.float32))
    assert np.isfinite(y).all()


def test_the_chosen_threshold_has_the_best_score_of_all():
    rng = np.random.default_rng(0)
    copies, others = rng.normal(0.8, 0.08, 300).astype(np.float32), rng.normal(0.7, 0.08, 100).astype(np.float32)
    found = choose_threshold(copies, others)

    def score(threshold: float) -> float:
        return float((copies >= threshold).mean() - COST * (others >= threshold).mean())

    assert score(found.threshold) == pytest.approx(max(score(t) for t in np.linspace(0.01, 1, 100)), abs=0.02)
    assert found.found == pytest.approx((copies >= found.threshold).mean())
    assert found.others == pytest.approx((others >= found.threshold).mean())
    assert 0.75 < found.threshold < 0.95


def test_if_copies_and_others_are_apart_the_threshold_is_between_them():
    found = choose_threshold(np.full(30, 0.9, dtype=np.float32), np.full(10, 0.5, dtype=np.float32))
    assert found.threshold == pytest.approx(0.7, abs=0.01)
    assert (found.found, found.others) == (1, 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "run", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return tmp_path / "run"


def make_textures(folder: Path, copies: int, every: int) -> Path:
    """60 different pictures, and so many copies of some of them, as JPEG of different quality."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(60):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        image = small.resize((48, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:02d}.png")
        for k in range(copies if i % every == 0 else 0):
            image.save(folder / f"{i:02d}_copy{k}.jpg", quality=60 + 5 * k)
    return folder


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    return make_textures(tmp_path / "textures", 1, 10)


def test_dedup_finds_copies_by_a_calibrated_threshold(run: Path, textures: Path):
    found = moco.dedup(run, textures, device="cpu", workers=0)
    assert found.calibration is not None
    assert found.threshold == found.calibration.threshold
    names = [sorted(Path(path).name for path, _ in group) for group in found.groups]
    assert sorted(names) == [[f"{i:02d}.png", f"{i:02d}_copy0.jpg"] for i in range(0, 60, 10)]
    again = moco.dedup(run, textures, device="cpu", workers=0)
    assert again.to_dict() == found.to_dict()


def test_many_copies_do_not_change_what_is_a_copy(run: Path, tmp_path: Path):
    found = moco.dedup(run, make_textures(tmp_path / "textures", 4, 1), device="cpu", workers=0)
    assert 60 <= len(found.keep) < 70
    for group in found.groups:
        assert len({Path(path).name[:2] for path, _ in group}) == 1


def test_the_command_says_what_the_threshold_finds(run: Path, textures: Path):
    result = CliRunner().invoke(app, ["dedup", str(run), str(textures), "--device", "cpu"])
    assert "of planted copies" in result.stdout
    result = CliRunner().invoke(app, ["dedup", str(run), str(textures), "--device", "cpu", "--json"])
    assert 0 <= json.loads(result.stdout)["calibration"]["found"] <= 1


def test_a_given_threshold_is_not_calibrated(run: Path, textures: Path):
    found = moco.dedup(run, textures, threshold=0.97, device="cpu", workers=0)
    assert (found.threshold, found.calibration) == (0.97, None)


def test_a_file_of_features_has_the_fixed_threshold(tmp_path: Path):
    found = moco.dedup(*make_embedded(tmp_path, 60))
    assert (found.threshold, found.calibration) == (0.95, None)


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold: float, tmp_path: Path):
    with pytest.raises(RecipeError, match="threshold"):
        moco.dedup(*make_embedded(tmp_path, 10), threshold=threshold)


def test_the_same_groups_are_found_by_cells_and_exactly():
    pytest.importorskip("faiss", reason="needs the extra `atlas`")
    from moco.atlas.collection import Collection

    x = alike(3000)
    x[5::30] = x[4::30]
    collection = Collection(x, [str(i) for i in range(3000)], None, np.arange(3000), None, {})
    exact, cells = (find_near_duplicates(collection, exact=one) for one in (True, False))
    assert (exact.method, cells.method) == ("exact", "faiss, cells")
    assert len(exact.groups) >= 100
    assert [(one.keep, one.others) for one in cells.groups] == [(one.keep, one.others) for one in exact.groups]
