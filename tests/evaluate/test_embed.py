import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sample_pictures import make_pictures

from moco.data.sources.folder import DataError, find_images
from moco.encoders import Encoder
from moco.evaluate.embed import embed_to_file, escape_line_breaks
from moco.evaluate.features import Pretrained, load_pretrained
from moco.recipe import Recipe, RecipeError
from moco.text import guard_cell
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import DATA, SPEC


@pytest.fixture
def run(encoder: Encoder, tmp_path: Path) -> Path:
    save_encoder(tmp_path / "run", encoder, recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return tmp_path / "run"


def write(run: Path, pictures: Path, name: str, **settings: object) -> Path:
    out = run.parent / name
    done = embed_to_file(run, pictures, out, device="cpu", **settings)  # pyright: ignore[reportArgumentType]
    assert (done.images, done.left_out, done.files[0]) == (40, {}, out)
    return out


def test_npy_holds_the_embeddings_and_a_text_beside_it_their_names(run: Path, pictures: Path):
    out = write(run, pictures, "features.npy")
    np.testing.assert_array_equal(np.load(out), load_pretrained(run, device="cpu").embed(pictures))
    assert (run.parent / "features.names.txt").read_text().splitlines() == list(find_images(pictures).names)


def test_csv_gives_back_the_same_float32(run: Path, pictures: Path):
    with write(run, pictures, "features.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head[:3] == ["name", "f0", "f1"]
    assert [row[0] for row in rows] == list(find_images(pictures).names)
    values = np.array([row[1:] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(values, load_pretrained(run, device="cpu").embed(pictures))


def test_parquet_holds_names_and_vectors(run: Path, pictures: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(run, pictures, "features.parquet"))
    assert table.column_names == ["name", "feature"]
    assert table["name"].to_pylist() == list(find_images(pictures).names)
    features = np.array(table["feature"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(features, load_pretrained(run, device="cpu").embed(pictures))


def test_features_are_normalized_when_asked(run: Path, pictures: Path):
    unit = np.load(write(run, pictures, "features.npy", normalize=True))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["features.npy", "features.csv", "features.parquet"])
def test_bad_images_are_skipped_and_reported(run: Path, pictures: Path, name: str):
    (pictures / "0007.png").write_bytes(b"no")
    done = embed_to_file(run, pictures, run.parent / name, device="cpu")
    assert (done.images, list(done.left_out)) == (39, ["0007.png"])
    if name.endswith(".npy"):
        assert np.load(run.parent / name).shape[0] == 39
        assert "0007.png" not in (run.parent / "features.names.txt").read_text().split()


@pytest.mark.parametrize("name", ["features.npy", "features.csv"])
def test_a_file_is_replaced_completely_or_not_at_all(run: Path, pictures: Path, name: str):
    out = write(run, pictures, name)
    before = {path: path.read_bytes() for path in run.parent.glob("features.*")}
    (pictures / "0039.png").write_bytes(b"no")
    with pytest.raises(DataError, match="more than the 0 allowed"):
        embed_to_file(run, pictures, out, device="cpu", max_bad=0, overwrite=True)
    assert {path: path.read_bytes() for path in run.parent.glob("features.*")} == before
    assert not list(run.parent.glob(".*"))
    embed_to_file(run, pictures, out, device="cpu", overwrite=True)
    assert {path: path.read_bytes() for path in run.parent.glob("features.*")} != before


@pytest.mark.parametrize("name", ["features.npy", "features.csv"])
def test_existing_files_are_replaced_only_with_overwrite(run: Path, pictures: Path, name: str):
    for there in ("features.names.txt", name) if name.endswith(".npy") else (name,):
        (run.parent / there).write_text("mine")
        with pytest.raises(RecipeError, match=f"{there} exists: give --overwrite"):
            embed_to_file(run / "not there", pictures, run.parent / name)
        assert (run.parent / there).read_text() == "mine"
        (run.parent / there).unlink()


def test_embed_refuses_to_overwrite_a_file_that_it_reads(run: Path, pictures: Path):
    for listed, out in (("l.csv", "l.csv"), ("l.names.txt", "l.npy")):
        (pictures / listed).write_text("0000.png\n")
        with pytest.raises(RecipeError, match="is read by this command"):
            embed_to_file(run, pictures / listed, pictures / out, overwrite=True)
        assert (pictures / listed).read_text() == "0000.png\n"
    (pictures / "0000.png").rename(pictures / "0000.csv")
    (pictures / "other.txt").write_text("0000.csv\n")
    with pytest.raises(RecipeError, match="is read by this command"):
        embed_to_file(run, pictures / "other.txt", pictures / "0000.csv", overwrite=True)


def test_single_images_are_embedded(run: Path, pictures: Path, tmp_path: Path):
    make_pictures(tmp_path / "more", 1)
    one, other = pictures / "0003.png", tmp_path / "more" / "0000.png"
    embed_to_file(run, [one, other], tmp_path / "a.npy", device="cpu")
    assert (tmp_path / "a.names.txt").read_text().splitlines() == ["0003.png", "0000.png"]
    expected = load_pretrained(run, device="cpu").embed([one, other])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)
    assert embed_to_file(run, one, tmp_path / "b.csv", device="cpu").images == 1


def test_features_that_are_not_finite_are_an_error_and_leave_no_file(run: Path, pictures: Path, tmp_path: Path):
    tensors = load_file(run / "model.safetensors")
    tensors["conv1.weight"].fill_(3e38)  # finite, as weights have to be; sums of them are not
    save_file(tensors, tmp_path / "nan.safetensors", metadata={"format": "pt"})
    shutil.copy(tmp_path / "nan.safetensors", run / "model.safetensors")
    known = json.loads((run / "config.json").read_text())
    for name in ("sha256", "config_sha256"):
        known.pop(name, None)
    (run / "config.json").write_text(json.dumps(known))
    with pytest.raises(FloatingPointError, match=r"not finite numbers, the first is 0000\.png"):
        embed_to_file(run, pictures, tmp_path / "a.npy", device="cpu")
    assert not list(tmp_path.glob("*a.n*"))


def test_nothing_that_can_be_read_is_an_error_and_leaves_no_file(run: Path, tmp_path: Path):
    make_pictures(tmp_path / "p", 2)
    for path in (tmp_path / "p").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(DataError, match="none of the 2 images can"):
        embed_to_file(run, tmp_path / "p", tmp_path / "out.npy", device="cpu")
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("name", ["features.txt", "features", "features.NPY"])
def test_another_kind_of_file_is_refused_before_any_work(run: Path, pictures: Path, name: str):
    with pytest.raises(RecipeError, match=r"\.npy"):
        embed_to_file(run / "not there", pictures, run.parent / name)


def test_a_missing_folder_is_an_error(run: Path, pictures: Path):
    with pytest.raises(RecipeError, match="Create it first"):
        embed_to_file(run, pictures, run.parent / "nowhere" / "a.npy")


def test_parquet_without_pyarrow_names_the_extra(run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecipeError, match=r"\.\[data\]"):
        embed_to_file(run, pictures, run.parent / "a.parquet")


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta", "'a"])
def test_names_that_a_spreadsheet_takes_for_formulas_are_guarded(name: str):
    assert guard_cell(name) == "'" + name
    assert guard_cell("a" + name) == "a" + name


def test_a_formula_as_a_file_name_is_guarded_in_the_csv(run: Path, tmp_path: Path):
    make_pictures(tmp_path / "p", 2)
    (tmp_path / "p" / "0000.png").rename(tmp_path / "p" / "=HYPERLINK(1).png")
    embed_to_file(run, tmp_path / "p", tmp_path / "a.csv", device="cpu")
    assert "'=HYPERLINK(1).png" in (tmp_path / "a.csv").read_text()


def test_every_name_is_one_line_of_utf8():
    assert escape_line_breaks("a\nb\r.png") == "a\\nb\\r.png"
    assert escape_line_breaks(b"caf\xe9.png".decode("utf-8", "surrogateescape")).encode() == b"caf\\udce9.png"
    assert escape_line_breaks("größe 你好.png") == "größe 你好.png"


def test_a_name_with_a_line_break_keeps_rows_and_names_in_step(run: Path, tmp_path: Path):
    make_pictures(tmp_path / "p", 3)
    (tmp_path / "p" / "0001.png").rename(tmp_path / "p" / "0001\n.png")
    embed_to_file(run, tmp_path / "p", tmp_path / "a.npy", device="cpu")
    assert len((tmp_path / "a.names.txt").read_text().splitlines()) == len(np.load(tmp_path / "a.npy")) == 3


def test_the_encoder_is_in_eval_mode(run: Path, pictures: Path):
    one = np.load(write(run, pictures, "a.npy"))
    x = torch.stack([load_pretrained(run, device="cpu").transform(path) for path in sorted(pictures.iterdir())[:1]])
    np.testing.assert_allclose(one[:1], load_pretrained(run, device="cpu").features(x).numpy(), atol=1e-5)


def test_the_path_of_one_image_is_a_source_in_python_too(pretrained: Pretrained, pictures: Path):
    one = find_images(pictures).path(0)
    assert np.array_equal(pretrained.embed(str(one)), pretrained.embed([str(one)]))


def test_the_repr_of_an_encoder_is_one_line(pretrained: Pretrained):
    assert repr(pretrained).startswith("Pretrained('")
    assert len(repr(pretrained)) < 120
