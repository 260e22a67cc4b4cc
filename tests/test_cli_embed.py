"""`moco embed` on the command line."""

import json
from pathlib import Path

import pytest
from sample_pictures import make_pictures
from typer.testing import CliRunner

from moco.cli import app
from moco.recipe import Recipe
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import DATA, SPEC, trained_encoder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "run", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return tmp_path / "run"


def embed(*arguments: object):
    return CliRunner().invoke(app, ["embed", *map(str, arguments), "--device", "cpu"])


def test_json_output_names_the_written_files(run: Path, pictures: Path, tmp_path: Path):
    (pictures / "0007.png").write_bytes(b"no")
    result = embed(run, pictures, "--to", tmp_path / "a.npy", "--json")
    said = json.loads(result.stdout)
    assert said["files"] == [str(tmp_path / "a.npy"), str(tmp_path / "a.names.txt")]
    assert (said["images"], said["features"], list(said["left_out"])) == (39, 32, ["0007.png"])


def test_an_existing_file_is_refused_without_overwrite(run: Path, pictures: Path, tmp_path: Path):
    (tmp_path / "a.csv").write_text("mine")
    refused = embed(run, pictures, "--to", tmp_path / "a.csv")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert embed(run, pictures, "--to", tmp_path / "a.csv", "--overwrite").exit_code == 0


def test_the_list_that_names_the_images_is_not_replaced(run: Path, pictures: Path):
    (pictures / "l.csv").write_text("0000.png\n")
    assert embed(run, pictures / "l.csv", "--to", pictures / "l.csv", "--overwrite").exit_code == 2
    assert (pictures / "l.csv").read_text() == "0000.png\n"


def test_an_interruption_says_what_was_left(run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moco.evaluate.embed.eval_batches", interrupted)
    result = embed(run, pictures, "--to", tmp_path / "a.npy")
    assert (result.exit_code, result.stderr) == (130, "moco: interrupted: nothing was written\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "pictures"}


def test_features_that_are_not_finite_end_with_4(tmp_path: Path, pictures: Path):
    encoder = trained_encoder()
    next(encoder.parameters()).data.fill_(3e38)  # finite, as weights have to be; sums of them are not
    save_encoder(tmp_path / "nan", encoder, recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    result = embed(tmp_path / "nan", pictures, "--to", tmp_path / "a.npy")
    assert result.exit_code == 4
    assert "not finite" in result.stderr
    assert not (tmp_path / "a.npy").exists()


def test_one_image_is_embedded(run: Path, tmp_path: Path):
    make_pictures(tmp_path / "p", 1)
    assert embed(run, tmp_path / "p" / "0000.png", "--to", tmp_path / "a.csv").exit_code == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("0000.png,")
