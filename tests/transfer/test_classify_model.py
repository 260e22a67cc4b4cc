"""The classifier of `moco transfer classify`: its loss, its augmentations, and the accuracies."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from moco.encoders import build_headless
from moco.recipe import EncoderSpec, RecipeError
from moco.transfer.classification.model import Classifier, add_drop_path, erase_randomly
from moco.transfer.classification.recipe import AugmentSpec
from moco.transfer.classification.score import accuracies, details_by_class, frequency_scores

RESNET, VIT = EncoderSpec(name="resnet18", width=0.125, stem="3x3"), EncoderSpec(name="vit_micro")


def test_accuracies_are_scikit_learns():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 12)), rng.integers(0, 12, 300)
    found = accuracies(torch.from_numpy(logits), torch.from_numpy(labels))
    answers = logits.argmax(axis=1)
    assert found["top1"] == pytest.approx(100 * accuracy_score(labels, answers))
    assert found["top5"] == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5, labels=range(12)))
    assert found["per_class"] == pytest.approx(100 * balanced_accuracy_score(labels, answers))


def test_classes_without_test_images_are_left_out_of_the_mean_over_classes():
    assert accuracies(torch.eye(3), torch.tensor([0, 0, 2]))["per_class"] == 75


def test_details_name_what_a_class_is_taken_for():
    logits = torch.eye(3)[[0, 2, 2, 1, 2]]
    found = details_by_class(logits, torch.tensor([0, 0, 0, 1, 1]), ("cat", "dog", "eel"))
    assert found == {
        "cat": {"images": 3, "top1": pytest.approx(100 / 3), "most_often_taken_for": "eel"},
        "dog": {"images": 2, "top1": 50, "most_often_taken_for": "eel"},
    }
    assert details_by_class(torch.eye(2), torch.arange(2), ("a", "b"))["a"]["most_often_taken_for"] is None


def test_few_classes_have_no_top5():
    assert accuracies(torch.eye(4), torch.arange(4)) == {"top1": 100, "per_class": 100}


def test_the_baseline_is_the_most_frequent_class_of_training():
    train, test = np.array([2] * 5 + [0] * 3 + [1]), np.array([2, 2, 2, 0, 1, 1])
    assert frequency_scores(train, test, 3) == {"top1": 50, "per_class": pytest.approx(100 / 3)}


def classifier(augment: AugmentSpec | None = None, spec: EncoderSpec = VIT) -> Classifier:
    torch.manual_seed(0)
    encoder = build_headless(spec, size=16)
    return Classifier(encoder, 4, augment or AugmentSpec(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


CROPS, LABELS = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8), torch.tensor([0, 1, 2, 3, 0, 1])


def test_the_loss_is_cross_entropy_with_smoothed_labels():
    model = classifier(AugmentSpec(smoothing=0.1))
    found = model(CROPS, LABELS)["loss_class"]
    logits = model.eval()(CROPS)
    target = 0.9 * F.one_hot(LABELS, 4) + 0.1 / 4
    assert torch.allclose(found, -(target * logits.log_softmax(dim=1)).sum(dim=1).mean(), atol=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_the_labels_of_both(kind):
    model = classifier(AugmentSpec(**{kind: 1.0}))
    assert model.mix is not None
    images = torch.eye(6)[:, :, None, None].expand(6, 6, 16, 16)  # image i is 1 in channel i alone
    x, target = model.mix(images, torch.tensor([0, 1, 2, 3, 0, 1]))
    share = x.mean(dim=(2, 3))  # of each original in each mixed image
    assert torch.allclose(share.sum(dim=1), torch.ones(6), atol=1e-5)
    assert torch.allclose(share @ F.one_hot(LABELS, 4).float(), target, atol=1e-5)


def test_erasing_replaces_a_rectangle_of_some_images():
    torch.manual_seed(0)
    x = torch.zeros(200, 3, 32, 32)
    changed = (erase_randomly(x, 0.25) != 0).any(dim=1)
    some = changed.flatten(1).any(dim=1)
    assert 0.15 < some.double().mean() < 0.35
    area = changed[some].double().mean(dim=(1, 2))
    assert area.min() > 0.01
    assert area.max() < 0.36


def test_drop_path_rises_to_its_rate_and_is_off_in_evaluation():
    encoder = build_headless(EncoderSpec(name="vit_micro"), size=16)
    add_drop_path(encoder, 0.5)
    block = encoder.backbone.blocks[2].train()
    tokens = torch.ones(2000, 1, 64)
    kept = block.attn(tokens)[:, 0].abs().sum(dim=1) > 0
    assert kept.double().mean() == pytest.approx(0.5, abs=0.05)
    first = encoder.backbone.blocks[0].train()
    assert torch.equal(first.attn(tokens), first.eval().attn(tokens))
    assert torch.equal(block.eval().mlp(tokens), block.mlp(tokens))


def test_drop_path_of_a_resnet_is_refused():
    with pytest.raises(RecipeError, match=r"augment\.drop_path works only for a ViT"):
        classifier(AugmentSpec(drop_path=0.1), RESNET)
