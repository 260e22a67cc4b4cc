import numpy as np
import pytest
import torch

from moco.data.sources.folder import DataError
from moco.evaluate import linear
from moco.evaluate.linear import STRENGTHS, hold_out, probe_lbfgs
from tests.evaluate.samples import clouds, features_of


def test_classes_that_a_plane_separates_are_told_apart():
    assert probe_lbfgs(clouds(200, noise=0.3), clouds(100, noise=0.3, seed=1)).accuracy == 100


def test_the_strength_is_the_best_of_those_tried():
    probe = probe_lbfgs(clouds(60, dims=40, noise=3), clouds(100, dims=40, noise=3, seed=1))
    assert probe.tried[probe.setting] == max(probe.tried.values())
    assert len(probe.tried) > 1


def test_the_strength_matters_where_images_are_few():
    train, test = clouds(60, dims=60, noise=4), clouds(2000, dims=60, noise=4, seed=1)
    alone = [probe_lbfgs(train, test, strengths=[l2]).accuracy for l2 in STRENGTHS]
    assert max(alone) > min(alone) + 1


def test_the_strength_does_not_depend_on_the_test_images():
    train, test = clouds(60, dims=40, noise=3), clouds(100, dims=40, noise=3, seed=1)
    wrong = features_of(-test.x.numpy(), test.known_labels().numpy()[::-1].copy())
    one, other = probe_lbfgs(train, test), probe_lbfgs(train, wrong)
    assert (one.setting, one.tried) == (other.setting, other.tried)


def test_all_training_images_are_fitted_in_the_end():
    """One strength alone needs no choice: the result must be the same as when that strength was chosen."""
    train, test = clouds(60, dims=40, noise=3), clouds(100, dims=40, noise=3, seed=1)
    chosen = probe_lbfgs(train, test)
    alone = probe_lbfgs(train, test, strengths=[chosen.setting])
    assert torch.equal(chosen.predictions, alone.predictions)
    assert alone.tried == {}


def test_a_fifth_of_each_class_is_held_out():
    labels = torch.tensor([0] * 25 + [1] * 13 + [2] * 4)
    fitted, held = hold_out(labels)
    assert labels[held].bincount(minlength=3).tolist() == [5, 2, 0]
    assert sorted([*fitted.tolist(), *held.tolist()]) == list(range(42))


def test_held_out_images_depend_on_the_seed_alone():
    labels = torch.arange(200) % 4
    assert torch.equal(hold_out(labels, seed=3)[1], hold_out(labels, seed=3)[1])
    assert not torch.equal(hold_out(labels, seed=3)[1], hold_out(labels, seed=4)[1])


def test_classes_too_small_to_hold_any_out_are_an_error():
    with pytest.raises(DataError, match="no class has 5"):
        probe_lbfgs(clouds(16), clouds(8, seed=1))


def test_images_without_labels_are_an_error():
    with pytest.raises(DataError, match="class folders"):
        probe_lbfgs(features_of(np.ones((20, 12)), None), clouds(8))


def test_an_answer_depends_on_no_other_test_image():
    train, test = clouds(60, noise=2), clouds(100, noise=2, seed=1)
    shifted = features_of(np.concatenate([test.x[:10].numpy(), 50 + test.x[10:].numpy()]), test.known_labels().numpy())
    assert torch.equal(probe_lbfgs(train, test).predictions[:10], probe_lbfgs(train, shifted).predictions[:10])


def test_weaker_strengths_are_left_out_once_two_in_a_row_were_worse(monkeypatch: pytest.MonkeyPatch):
    script = iter([50.0, 60.0, 55.0, 61.0, 60.0, 59.0, 99.0])
    monkeypatch.setattr(linear, "accuracy", lambda predictions, truth: next(script))
    strengths = [10.0**-power for power in range(7)]
    probe = linear.probe_lbfgs(clouds(60), clouds(20, seed=1), strengths=strengths)
    assert list(probe.tried.values()) == [50, 60, 55, 61, 60, 59]
    assert probe.setting == strengths[3]
