"""Neighbours, search by example and near-duplicates, against plain numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco.atlas.collection import normalize_rows, open_collection
from moco.atlas.duplicates import group_near, outliers
from moco.atlas.index import Cells, Exact, build_index, neighbours_of_all
from moco.atlas.search import combine
from moco.cli import app
from moco.evaluate.embed import embed_to_file
from moco.recipe import Recipe
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import DATA, SPEC, trained_encoder


def features(n: int, dim: int = 16) -> np.ndarray:
    """In clusters, as those of images."""
    rng = np.random.default_rng(0)
    return normalize_rows(
        (rng.normal(size=(20, dim))[rng.integers(0, 20, n)] + 0.3 * rng.normal(size=(n, dim))).astype("float32")
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "run", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 12, classes=3)


def moco(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def test_the_neighbours_of_all_are_those_of_a_full_product():
    x = features(200)
    products = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(products, -2)
    values, rows = neighbours_of_all(x, 5)
    np.testing.assert_array_equal(rows, np.argsort(-products, axis=1)[:, :5])
    np.testing.assert_allclose(values, -np.sort(-products, axis=1)[:, :5], atol=1e-5)


def test_an_image_is_not_its_own_neighbour_among_identical_ones():
    rows = neighbours_of_all(normalize_rows(np.ones((30, 4), dtype=np.float32)), 3)[1]
    assert not (rows == np.arange(30)[:, None]).any()


def test_cells_find_at_least_98_percent_of_the_ten_nearest():
    faiss = pytest.importorskip("faiss", reason="needs the extra `atlas`")
    x = features(3000)
    exact, found = Exact(x).nearest(x[:300], 10)[1], Cells(x, faiss).nearest(x[:300], 10)[1]
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]) >= 0.98


def test_the_same_pairs_are_within_a_threshold_by_cells_and_exactly():
    faiss = pytest.importorskip("faiss", reason="needs the extra `atlas`")
    x = features(2000)
    a, b = Exact(x).find_pairs(x[:50], 0.9), Cells(x, faiss).find_pairs(x[:50], 0.9)
    assert {*zip(a.queries.tolist(), a.rows.tolist(), strict=True)} == {
        *zip(b.queries.tolist(), b.rows.tolist(), strict=True)
    }


def test_without_faiss_many_images_are_compared_exactly(monkeypatch):
    monkeypatch.setattr("moco.atlas.index._import_faiss", lambda: None)
    assert isinstance(build_index(np.zeros((60_000, 2), dtype=np.float32)), Exact)


def test_each_dropped_image_is_near_to_the_kept_one_and_no_two_kept_ones_are_near():
    x, threshold = features(300), 0.9
    x[250:260] = x[7]  # copies
    groups = group_near(x, threshold=threshold)
    products = x @ x.T
    dropped = {row for group in groups for row in group.others}
    assert all(products[group.keep, row] >= threshold - 1e-5 for group in groups for row in group.others)
    kept = np.array([row for row in range(300) if row not in dropped])
    among = products[np.ix_(kept, kept)] - 2 * np.eye(len(kept))
    assert among.max() < threshold + 1e-5
    assert {*range(250, 260)} <= dropped
    assert sum(len(group.others) for group in groups) == len(dropped)


def test_a_chain_of_similar_images_is_not_one_group():
    angles = np.deg2rad(np.arange(0, 90, 8))
    groups = group_near(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), threshold=0.98)
    assert all(len(group.others) == 1 for group in groups)  # 8 degrees: 0.990; 16 degrees: 0.961


def test_the_loneliest_image_is_the_first_outlier():
    x = np.pad(features(100), ((0, 0), (0, 1)))
    x[40] = np.eye(17)[16]  # at a right angle to all others
    assert outliers(neighbours_of_all(x, 5)[0])[0] == 40


def test_a_query_is_the_mean_of_positives_minus_half_the_mean_of_negatives():
    p, n = normalize_rows(np.array([[1, 0], [0, 2]], dtype=np.float32)), np.array([[0, 3]], dtype=np.float32)
    expected = np.array([0.5, 0.5 - 0.5])
    np.testing.assert_allclose(combine(p, n), expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_a_file_of_embed_is_read_back_with_its_images(run: Path, photos: Path, tmp_path: Path, suffix: str):
    embed_to_file(run, photos, tmp_path / f"a{suffix}", device="cpu", workers=0)
    found = open_collection(tmp_path / f"a{suffix}", photos)
    expected = open_collection(run, photos, device="cpu", workers=0)
    assert list(found.names) == list(expected.names)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-6)
    assert found.path(0) == expected.path(0)


def test_features_of_other_images_are_refused(run: Path, photos: Path, tmp_path: Path):
    embed_to_file(run, photos, tmp_path / "a.npy", device="cpu", workers=0)
    result = moco("dedup", tmp_path / "a.npy", make_pictures(tmp_path / "others", 3))
    assert result.exit_code == 3
    assert "same DATA" in result.stderr


def test_search_finds_the_image_itself_first_and_writes_a_list(run: Path, photos: Path, tmp_path: Path):
    query = photos / "class1" / "0004.png"
    result = moco("search", run, query, "--data", photos, "-k", 3, "--list", tmp_path / "l.txt", "--json")
    found = json.loads(result.stdout)
    assert (len(found), found[0]["path"]) == (3, str(query))
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "l.txt").read_text().splitlines() == [one["path"] for one in found]


def test_search_moves_away_from_images_that_are_not_wanted(run: Path, photos: Path):
    query, other = photos / "class0" / "0000.png", photos / "class1" / "0001.png"

    def similarity_of_other(*more: object) -> float:
        found = json.loads(moco("search", run, query, "--data", photos, "-k", 12, "--json", *more).stdout)
        return {one["path"]: one["similarity"] for one in found}[str(other)]

    assert similarity_of_other("--not", other) < similarity_of_other()


def test_dedup_lists_one_of_each_group_and_deletes_nothing(run: Path, photos: Path, tmp_path: Path):
    (photos / "class0" / "copy.png").write_bytes((photos / "class0" / "0000.png").read_bytes())
    result = moco("dedup", run, photos, "--threshold", 0.999999, "--list", tmp_path / "keep.txt")
    assert result.exit_code == 0
    kept = (tmp_path / "keep.txt").read_text().splitlines()
    assert str(photos / "class0" / "0000.png") in kept
    assert str(photos / "class0" / "copy.png") not in kept
    assert len(list(photos.rglob("*.png"))) == 13


@pytest.mark.parametrize(
    "arguments", [["search", "no", "q.png", "--data", "d"], ["dedup", "no.npy"], ["dedup", "no", "d"]]
)
def test_missing_sources_are_refused(arguments):
    assert moco(*arguments).exit_code in (1, 2, 3)
