import json
from pathlib import Path

import numpy as np
import pytest
from sample_pictures import make_pictures
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.comparison.measures import KNN
from moco.data.sources.folder import DataError
from moco.evaluate.evaluate import evaluate
from moco.recipe import Recipe, RecipeError
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import DATA, SPEC, trained_encoder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    recipe = Recipe(name="r", encoder=SPEC, data=DATA)
    save_encoder(tmp_path / "mine", trained_encoder(), recipe=recipe, facts={})
    return tmp_path / "mine"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "labelled" / "train", 60, classes=4)
    make_pictures(tmp_path / "labelled" / "test", 60, classes=4, seed=1)
    return tmp_path / "labelled"


def test_the_scores_are_those_of_moco_eval(encoder: Path, labelled: Path):
    found = moco.compare(encoder, labelled, baselines=["random", "pixels"])
    judged = {"knn": {"k": 20}, "linear": {}, "lowshot": {"labels_per_class": 10, "draws": 10}}
    rows = {kind: evaluate(kind, encoder, labelled, settings=settings).rows for kind, settings in judged.items()}
    for name, row in (("mine", "mine"), ("pixels", "raw pixels")):
        scores = found.scores[name]
        assert scores[KNN][0] == pytest.approx(rows["knn"][row]["kNN-20"].accuracy)
        assert scores["linear"][0] == pytest.approx(rows["linear"][row]["linear"].accuracy)
        few = rows["lowshot"][row]["linear, 10 labels a class"].accuracy
        assert scores["10 labels a class"][0] == pytest.approx(few)
    assert len(found.scores["random"][KNN]) == 3
    assert found.level == pytest.approx(0.975)


def test_a_difference_is_that_of_the_scores_and_its_interval_has_it_inside(encoder: Path, labelled: Path):
    found = moco.compare(encoder, labelled, baselines=["random"])
    for measure, one in found.differences["random"].items():
        apart = found.scores["mine"][measure][0] - np.mean(found.scores["random"][measure])
        assert one.points == pytest.approx(apart)
        assert one.low <= one.points <= one.high


def test_the_same_encoder_twice_cannot_be_told_apart(encoder: Path, labelled: Path):
    found = moco.compare(encoder, labelled, baselines=[str(encoder)])
    assert found.verdict.answer == "cannot tell"
    assert {one.points for one in found.differences[str(encoder)].values()} == {0.0}


def test_a_baseline_of_the_same_name_has_its_own_row(
    encoder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert list(moco.compare("mine", labelled, baselines=["mine"]).scores) == ["mine (judged)", "mine"]


def test_few_test_images_give_no_verdict(encoder: Path, labelled: Path, tmp_path: Path):
    make_pictures(tmp_path / "few", 24, classes=4, seed=2)
    found = moco.compare(encoder, labelled / "train", test=tmp_path / "few", baselines=["pixels"])
    expected = "Cannot tell against pixels: 24 images to test on, and 50 are needed: give more images."
    assert found.verdict.sentence == expected


def test_the_text_has_every_score_and_interval_in_lines_of_a_terminal(
    encoder: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(labelled.parent)  # a long path has a line of its own, and is not broken
    found = moco.compare(encoder, labelled.name, baselines=["random", "pixels"])
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert found.verdict.sentence in " ".join(text.split())
    for baseline, differences in found.differences.items():
        block = next(one for one in text.split("\n\n") if one.startswith(f"mine against {baseline}: "))
        assert found.verdicts[baseline].answer in block.splitlines()[0]
        for measure, one in differences.items():
            row = next(line for line in block.splitlines() if line.strip().startswith(measure))
            ours, theirs = found.scores["mine"][measure], found.scores[baseline][measure]
            for value in (sum(ours) / len(ours), sum(theirs) / len(theirs), one.low, one.high):
                assert f"{value:.1f}" in row


def test_unusable_baselines_and_images_are_refused(encoder: Path, labelled: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match="at least one baseline, each once"):
        moco.compare(encoder, labelled, baselines=["pixels", "pixels"])
    make_pictures(tmp_path / "flat", 10)
    with pytest.raises(DataError, match="no labels"):
        moco.compare(encoder, tmp_path / "flat", test=labelled / "test", baselines=["pixels"])
    with pytest.raises(DataError, match="among the training images"):
        moco.compare(encoder, labelled / "train", test=labelled / "train", baselines=["pixels"])


def test_the_command_prints_json_and_a_sentence(encoder: Path, labelled: Path):
    command = ["compare", str(encoder), str(labelled), "--baselines", "pixels"]
    content = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert content["verdict"]["answer"] in ("yes", "no", "cannot tell")
    said = " ".join(CliRunner().invoke(app, command).stdout.split())
    assert f"Is it worth it? {content['verdict']['sentence']}" in said
