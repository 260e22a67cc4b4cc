"""The atlas as a page and as a table: what is in them, and what they may replace."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import moco
from moco.atlas import layout as layout_module
from moco.atlas import make_atlas
from moco.atlas.collection import open_collection
from moco.atlas.contents import CategoryColumn, compact, compute_contents, z_order
from moco.atlas.thumbnails import GREY, TILES_ACROSS, Sheets
from moco.cli import app
from moco.data.sources.open import open_folder
from moco.recipe import RecipeError
from moco.train.existing_folder import AFTER_THE_FIRST_STEP
from tests.atlas.samples import clustered, make_embedded


@pytest.fixture(autouse=True)
def without_pacmap(monkeypatch):
    """PaCMAP compiles for seconds; tests/atlas/test_layout.py has it."""
    monkeypatch.setattr(layout_module, "_import_pacmap", lambda: None)


@pytest.fixture
def embedded(tmp_path: Path) -> tuple[Path, Path]:
    return make_embedded(tmp_path, 40)


def block(page: str, name: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def test_compact_features_keep_the_cosine_similarities():
    x = clustered(300, dim=200, kinds=20)
    small = compact(x).astype(np.float32)
    assert small.shape == (300, 64)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    assert np.abs(small @ small.T - x @ x.T).max() < 0.12
    full = compact(x, 200).astype(np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    assert np.abs(full @ full.T - x @ x.T).max() < 0.02  # of int8 alone


def test_the_z_order_of_a_grid_visits_each_quarter_in_one_piece():
    xy = np.array([(x, y) for y in (-0.9, -0.1, 0.1, 0.9) for x in (-0.9, -0.1, 0.1, 0.9)], dtype=np.float32)
    order = z_order(xy)
    quarters = [tuple(np.sign(xy[i])) for i in order]
    assert [len({*quarters[k : k + 4]}) for k in (0, 4, 8, 12)] == [1, 1, 1, 1]


def test_a_sheet_has_each_thumbnail_at_its_place_and_grey_for_an_unreadable_image(tmp_path: Path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{i}.png")
    images = open_folder(tmp_path)
    (tmp_path / "1.png").write_bytes(b"no image")
    content = Sheets(images, np.array([2, 1, 0]), 16, 0).sheet(0)
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert sheet.shape == (16 * TILES_ACROSS, 16 * TILES_ACROSS, 3)
    for place, expected in enumerate([colours[2], (GREY,) * 3, colours[0]]):
        assert np.abs(sheet[8, 16 * place + 8] - expected).max() < 30  # WebP loses some


def test_images_are_grouped_by_label_folder_and_cluster(embedded):
    contents = compute_contents(open_collection(*embedded), clusters=6)
    by_name = {one.name: one for one in contents.properties}
    assert list(by_name) == ["label", "file size", "date of file", "cluster"]  # the folders are the labels
    label, cluster = by_name["label"], by_name["cluster"]
    assert isinstance(label, CategoryColumn)
    assert isinstance(cluster, CategoryColumn)
    assert len({*zip(label.codes.tolist(), cluster.codes.tolist(), strict=True)}) == 6
    sizes = np.bincount(cluster.codes)
    assert (np.diff(sizes) <= 0).all()


def test_the_page_has_the_places_and_names_of_all_images(embedded, tmp_path: Path):
    found = moco.write_atlas(*embedded, tmp_path / "a.html")
    page = found.page.read_text()
    data = json.loads(block(page, "atlas"))
    assert data["names"] == [f"class{i % 6}/{i:05d}.png" for i in range(40)]
    expected = compute_contents(open_collection(*embedded)).layout.xy
    np.testing.assert_array_equal(array(data["xy"], "<f4").reshape(-1, 2), expected)
    assert array(block(page, "features"), "i1").shape == (40 * 24,)
    assert sorted(array(data["places"], "<u4")) == list(range(40))
    Image.open(io.BytesIO(base64.b64decode(block(page, "sheet-0")))).verify()
    assert (found.images, found.left_out) == (40, {})


def test_the_page_may_load_nothing_and_run_only_its_own_script(embedded, tmp_path: Path):
    page = moco.write_atlas(*embedded, tmp_path / "a.html").page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy is not None
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    text = policy[1].replace("&#39;", "'")
    assert "default-src 'none'; img-src blob: data:; connect-src 'none'" in text
    assert f"script-src 'sha256-{digest}'" in text
    assert not re.findall(r"""(?:src|href)=["']?https?:""", page)


def test_the_same_images_give_the_same_files(embedded, tmp_path: Path):
    first = moco.write_atlas(*embedded, tmp_path / "a.html")
    before = first.page.read_bytes(), first.table.read_bytes()
    second = moco.write_atlas(*embedded, tmp_path / "a.html")
    assert (second.page.read_bytes(), second.table.read_bytes()) == before


def test_the_table_has_neighbours_and_places(embedded, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file, data = embedded
    x = np.load(file)
    x[7] = x[3]  # near-duplicates
    np.save(file, x)
    table = parquet.read_table(moco.write_atlas(file, data, tmp_path / "a.html").table).to_pydict()
    assert table["path"][5] == str(data / "class5/00005.png")
    assert table["id"] == list(range(40))
    products = x @ x.T - 2 * np.eye(40)
    expected = np.sort(1 - products, axis=1)[:, :12]
    np.testing.assert_allclose([row["distances"] for row in table["neighbors"]], expected, atol=1e-5)
    assert table["neighbors"][7]["ids"][0] == 3  # zero-based row numbers
    assert table["duplicate_of"][7] == 3
    assert table["duplicate_of"][3] is None
    assert table["label"][5] == "class5"


def test_features_without_images_have_a_map_without_thumbnails(embedded, tmp_path: Path):
    page = moco.write_atlas(embedded[0], None, tmp_path / "a.html").page.read_text()
    assert "sheet-0" not in page
    assert json.loads(block(page, "atlas"))["roots"] == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images_have_an_atlas(tmp_path: Path, n: int):
    assert moco.write_atlas(*make_embedded(tmp_path, n), tmp_path / "a.html").images == n


@pytest.mark.parametrize("name", ["a.html", "a.parquet"])
def test_files_that_are_no_atlas_are_not_replaced(embedded, tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RecipeError, match="not an atlas"):
        moco.write_atlas(*embedded, tmp_path / "a.html")
    assert (tmp_path / name).read_text() == "mine"


def test_more_images_than_a_page_can_have_are_refused(embedded, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(make_atlas, "MOST_IMAGES", 39)
    with pytest.raises(RecipeError, match="--serve"):
        moco.write_atlas(*embedded, tmp_path / "a.html")


def test_the_files_of_an_atlas_in_a_run_are_known_to_overwrite():
    assert {*make_atlas.NAMES} <= {*AFTER_THE_FIRST_STEP}


def test_the_command_writes_both_files_and_prints_their_names(embedded, tmp_path: Path):
    result = CliRunner().invoke(app, ["atlas", *map(str, embedded), "--out", str(tmp_path / "a.html"), "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["page"], found["table"]) == (str(tmp_path / "a.html"), str(tmp_path / "a.parquet"))
    assert (tmp_path / "a.html").is_file()


@pytest.mark.parametrize("out", ["a.txt", "no/a.html"])
def test_a_page_that_cannot_be_written_is_refused(embedded, tmp_path: Path, out: str):
    result = CliRunner().invoke(app, ["atlas", *map(str, embedded), "--out", str(tmp_path / out)])
    assert result.exit_code == 2
    assert "--out" in result.stderr or "does not exist" in result.stderr
