import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures
from torch import nn

import moco.data.loader.loader
from moco.data.sources.folder import DataError, find_images
from moco.encoders import build_headless
from moco.evaluate.evaluate import PIXELS, RANDOM, evaluate, judge, subjects
from moco.evaluate.features import Pretrained
from moco.evaluate.knn import knn
from moco.evaluate.linear import probe_lbfgs
from moco.evaluate.lowshot import lowshot
from moco.evaluate.progress import Progress
from moco.evaluate.protocols import Knn, Linear, LowShot
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.weights.encoder_folder import Config, save_encoder
from tests.evaluate.samples import CPU, DATA, SPEC, trained_encoder


def test_pixels_random_encoder_and_encoder_are_judged_by_the_same_rule(pretrained: Pretrained, labelled: Path):
    among = subjects(pretrained, labelled)
    table = judge([LowShot(3, draws=2), Knn(5), Linear()], among)
    assert list(table.rows) == [PIXELS, RANDOM, "the encoder"]
    np.testing.assert_array_equal(among.rows["the encoder"].test.x, pretrained.embed(labelled / "test"))
    assert table.columns == ["linear, 3 labels a class", "1-NN, 3 labels a class", "kNN-5", "1-NN", "linear"]
    for name, row in among.rows.items():
        scores = table.rows[name]
        few = lowshot(row.train, row.test, labels_per_class=3, draws=2)
        assert scores["kNN-5"].accuracy == knn(row.train, row.test, k=5).accuracy
        assert scores["1-NN"].accuracy == knn(row.train, row.test, k=1).accuracy
        assert scores["linear"].accuracy == probe_lbfgs(row.train, row.test).accuracy
        assert scores["linear, 3 labels a class"].draws == few.linear
        assert scores["1-NN, 3 labels a class"].accuracy == pytest.approx(np.mean(few.nearest))


def test_the_papers_protocol_is_judged_beside_its_baselines_too(pretrained: Pretrained, labelled: Path):
    table = judge([Linear("v1", lr=1.0, epochs=1, batch_size=16)], subjects(pretrained, labelled))
    assert table.columns == ["linear, v1"]
    assert len(table.rows) == 3


def test_images_are_read_once_whatever_is_asked(
    pretrained: Pretrained, labelled: Path, monkeypatch: pytest.MonkeyPatch
):
    cut, original = [], moco.data.loader.loader.cpu.eval_crop
    monkeypatch.setattr(moco.data.loader.loader.cpu, "eval_crop", lambda *args: cut.append(1) or original(*args))
    judge([LowShot(3), Knn(5), Knn(3), Linear()], subjects(pretrained, labelled))
    assert len(cut) == 60 + 24


def test_chance_is_the_share_of_the_largest_class(pretrained: Pretrained, labelled: Path):
    for path in sorted((labelled / "test" / "class3").iterdir())[1:]:
        path.unlink()
    table = judge([Knn(3)], subjects(pretrained, labelled))
    assert table.chance == pytest.approx(100 * 6 / 19)


def test_another_encoder_has_its_own_row_and_its_own_preprocessing(pretrained: Pretrained, labelled: Path):
    data = DATA.model_copy(update={"size": 20, "eval_resize": 20})
    encoder = trained_encoder(seed=3)
    other = Pretrained(encoder, Config(encoder=SPEC, num_features=32, data=data), CPU, "other")
    among = subjects(pretrained, labelled, others={"supervised": other})
    assert list(judge([Knn(3)], among).rows) == [PIXELS, RANDOM, "the encoder", "supervised"]
    np.testing.assert_array_equal(among.rows["supervised"].train.x, other.embed(labelled / "train"))


def test_several_random_encoders_are_several_baselines(pretrained: Pretrained, labelled: Path):
    among = subjects(pretrained, labelled, random_encoders=2)
    assert list(among.baselines) == [PIXELS, RANDOM, f"{RANDOM}, seed 1"]
    assert not torch.equal(among.rows[RANDOM].train.x, among.rows[f"{RANDOM}, seed 1"].train.x)


def test_one_folder_of_classes_is_split_and_the_split_is_reported(pretrained: Pretrained, labelled: Path):
    among = subjects(pretrained, labelled / "train")
    assert (len(among.split.train), len(among.split.test)) == (48, 12)
    assert "held out" in str(judge([Knn(3)], among))


def test_test_images_given_apart_are_judged(pretrained: Pretrained, labelled: Path):
    together = judge([Knn(3)], subjects(pretrained, labelled))
    apart = judge([Knn(3)], subjects(pretrained, labelled / "train", test=labelled / "test"))
    assert apart.rows == together.rows


def test_a_class_without_test_images_does_not_shift_the_others(pretrained: Pretrained, labelled: Path):
    shutil.rmtree(labelled / "test" / "class0")
    among = subjects(pretrained, labelled / "train", test=labelled / "test")
    names, row = among.split.train.classes, among.rows["the encoder"]
    said = [names[label] for label in row.test.known_labels().tolist()]
    assert said == [name.split("/")[0] for name in row.test.names]


def test_classes_that_are_only_in_the_test_images_are_an_error(pretrained: Pretrained, labelled: Path):
    (labelled / "test" / "class3").rename(labelled / "test" / "zebra")
    with pytest.raises(DataError, match="such as zebra"):
        subjects(pretrained, labelled / "train", test=labelled / "test")
    with pytest.raises(DataError, match="such as zebra"):
        subjects(pretrained, labelled)


def test_images_without_labels_are_an_error_that_says_what_to_do(pretrained: Pretrained, pictures: Path):
    with pytest.raises(DataError, match="Evaluation needs labels, that is, at least two class folders"):
        subjects(pretrained, pictures)
    with pytest.raises(DataError, match="Evaluation needs labels, that is, at least two class folders"):
        subjects(pretrained, pictures, test=pictures)


def test_images_that_cannot_be_read_are_left_out_and_named(pretrained: Pretrained, labelled: Path):
    (labelled / "train" / "class1" / "broken.png").write_bytes(b"no")
    table = judge([Knn(3)], subjects(pretrained, labelled))
    assert "1 image could not be read: class1/broken.png" in str(table)


def test_too_many_images_that_cannot_be_read_are_an_error(pretrained: Pretrained, labelled: Path):
    (labelled / "train" / "class1" / "broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match="bad, more than the 0 allowed"):
        subjects(pretrained, labelled, max_bad=0)


def test_a_module_without_new_random_parameters_is_evaluated_without_that_baseline(labelled: Path):
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * self.scale

    spec = EncoderSpec(name="custom")
    encoder = build_headless(spec, model=Mean(), size=16)
    own = Pretrained(encoder, Config(encoder=spec, num_features=3, data=DATA), CPU, "mine")
    table = judge([Knn(3)], subjects(own, labelled))
    assert list(table.rows) == [PIXELS, "mine"]
    assert "random encoder not measured: " in str(table)


def test_fewer_training_images_than_neighbours_are_reported(pretrained: Pretrained, labelled: Path):
    table = judge([Knn(200)], subjects(pretrained, labelled))
    assert table.columns == ["kNN-60", "1-NN"]  # the name says how many voted
    said = "kNN-60: 200 neighbours requested, but there are only 60 training images: all of them vote"
    assert " ".join(str(table).split()).count(said) == 1  # sentences are wrapped


@pytest.mark.parametrize(
    ("kind", "settings", "column"),
    [
        ("knn", {"k": 7, "temperature": 0.07}, "kNN-7"),
        ("linear", {}, "linear"),
        ("linear", {"protocol": "v3-vit", "lr": "sweep", "epochs": 1}, "linear, v3-vit"),
        ("lowshot", {"labels_per_class": 4}, "linear, 4 labels a class"),
    ],
)
def test_evaluate_makes_a_table_from_weights_and_images(
    pretrained: Pretrained, labelled: Path, tmp_path: Path, kind: str, settings: dict, column: str
):
    recipe = Recipe(name="r", encoder=SPEC, data=DATA)
    save_encoder(tmp_path / "run1" / "encoder", pretrained.encoder, recipe=recipe, facts={})
    table = evaluate(kind, tmp_path / "run1", labelled, settings=settings, device="cpu", workers=1)
    assert (table.judged, table.columns[0]) == ("run1", column)
    json.dumps(table.to_dict())


def test_features_as_good_as_random_ones_are_no_success_of_training(labelled: Path):
    class Colour(nn.Module):
        """Without weights: the classes' colours are all there is to it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    spec = EncoderSpec(name="custom")
    encoder = build_headless(spec, model=Colour(), size=16)
    table = judge(
        [Knn(5)], subjects(Pretrained(encoder, Config(encoder=spec, num_features=3, data=DATA), CPU, "mine"), labelled)
    )
    assert table.rows["mine"] == table.rows[RANDOM]
    assert table.verdict().startswith("mine differs from its best baseline")


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("kn", {}, "did you mean knn"),
        ("knn", {"kk": 3}, "did you mean k"),
        ("linear", {"lr": 3.0}, "only to the SGD protocols"),
        ("linear", {"protocol": "v2"}, "unknown protocol 'v2'"),
    ],
)
def test_a_wrong_setting_is_an_error(
    pretrained: Pretrained, labelled: Path, tmp_path: Path, kind: str, settings: dict, said: str
):
    recipe = Recipe(name="r", encoder=SPEC, data=DATA)
    save_encoder(tmp_path / "run1" / "encoder", pretrained.encoder, recipe=recipe, facts={})
    with pytest.raises(RecipeError, match=said):
        evaluate(kind, tmp_path / "run1", labelled, settings=settings, device="cpu")


def test_images_of_ones_own_must_have_the_same_classes(pretrained: Pretrained, labelled: Path):
    train, test = find_images(labelled / "train"), find_images(labelled / "test")
    among = subjects(pretrained, train, test=test)
    assert among.rows["the encoder"].test.classes == list(train.classes)


def test_two_classes_are_enough(pretrained: Pretrained, tmp_path: Path):
    make_pictures(tmp_path / "two", 40, classes=2)
    assert judge([Knn(3)], subjects(pretrained, tmp_path / "two")).classes == 2


def saved(pretrained: Pretrained, folder: Path) -> Path:
    save_encoder(
        folder / "run1" / "encoder", pretrained.encoder, recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={}
    )
    return folder / "run1"


def test_all_kinds_are_one_table_with_the_scores_of_each(pretrained: Pretrained, labelled: Path, tmp_path: Path):
    run = saved(pretrained, tmp_path)
    together = evaluate("all", run, labelled, settings={"k": 5, "labels_per_class": 4}, device="cpu")
    for kind, settings in (("knn", {"k": 5}), ("linear", {}), ("lowshot", {"labels_per_class": 4})):
        alone = evaluate(kind, run, labelled, settings=settings, device="cpu", cached=False)
        for row, scores in alone.rows.items():
            assert {column: together.rows[row][column] for column in scores} == scores


def test_one_evaluation_after_the_other_computes_features_once(
    pretrained: Pretrained, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, cut = saved(pretrained, tmp_path), []
    original = moco.data.loader.loader.cpu.eval_crop
    monkeypatch.setattr(moco.data.loader.loader.cpu, "eval_crop", lambda *args: cut.append(1) or original(*args))
    for kind in ("knn", "linear", "lowshot", "all"):
        evaluate(kind, run, labelled, device="cpu")
    assert len(cut) == 60 + 24
    evaluate("knn", run, labelled, device="cpu", cached=False)
    assert len(cut) == 2 * (60 + 24)


def test_an_evaluation_with_too_few_images_is_left_out_with_a_note(
    pretrained: Pretrained, labelled: Path, tmp_path: Path
):
    run = saved(pretrained, tmp_path)
    table = evaluate("all", run, labelled, settings={"labels_per_class": 16}, device="cpu")
    assert table.columns == ["kNN-60", "1-NN", "linear"]
    assert any(note.startswith("lowshot not measured: expected at least 16 training images") for note in table.notes)
    with pytest.raises(DataError, match="at least 16 training images"):
        evaluate("lowshot", run, labelled, settings={"labels_per_class": 16}, device="cpu")


def test_progress_has_a_stage_for_what_takes_long(pretrained: Pretrained, labelled: Path, tmp_path: Path):
    stages, expected = [], []

    class Noting(Progress):
        def expect(self, total: int, unit: str) -> None:
            expected.append((total, unit))

        def stage(self, what: str, total: int = 0, unit: str = "images") -> None:
            stages.append((what, total))

    run = saved(pretrained, tmp_path)
    evaluate("linear", run, labelled, settings={"protocol": "v1", "epochs": 2, "batch_size": 30}, progress=Noting())
    assert ("features", 60) in stages
    assert ("features", 24) in stages
    assert ("linear, run1", 0) in stages
    assert ("linear classifier, v1", 4) in stages
    evaluate("all", run, labelled, settings={"labels_per_class": 4}, progress=Noting())
    assert expected == [(1, "blocks")] * 3 + [(7, "fits")] * 3 + [(5, "draws")] * 3
