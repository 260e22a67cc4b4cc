"""The plan: what it cautions against, and what it does not."""

from pathlib import Path

import pytest
import torch
from sample_pictures import make_pictures

from moco import recipes
from moco.data.sources.folder import find_images
from moco.evaluate.features import PictureList
from moco.recipe import Recipe
from moco.train.plan_run import clock_of
from moco.train.summary import cautions, plan_rows, random_queue

CPU = torch.device("cpu")


@pytest.fixture
def cautioned(tmp_path):
    images = find_images(make_pictures(tmp_path / "pictures", 64))

    def of(recipe: Recipe) -> list[str]:
        return cautions(recipe, images, clock_of(recipe, len(images)), CPU)

    return of


def test_auto_gives_no_caution_about_its_own_settings(cautioned):
    for side in (32, 256):
        assert cautioned(recipes.auto(64, side=side, accelerated=False)) == []


def test_fewer_epochs_than_auto_chooses_give_a_caution(cautioned):
    (said,) = cautioned(recipes.auto(64, side=256, accelerated=False, epochs=2))
    assert "8 steps can show that the run works" in said


def test_another_batch_size_gives_a_caution_with_the_scaled_learning_rate(cautioned):
    base = {"optim.batch_size": 16, "method.size": 16, "optim.epochs": 1000, "method.bn_groups": 2}
    (said,) = cautioned(recipes.named("moco_v2_r50").but(None, base))
    assert "--set optim.lr.start=0.001875" in said  # 0.03 * 16 / 256
    assert cautioned(recipes.named("moco_v2_r50").but(None, base | {"optim.lr.start": 0.001875})) == []


def test_the_plan_explains_the_first_steps_of_a_queue_with_this_runs_numbers():
    (v2,) = random_queue(recipes.named("moco_v2_r50"))
    assert "Within 256 steps" in v2  # 65,536 keys, 256 a step
    assert "(11.09)" in v2  # ln(65,537)
    (symmetric,) = random_queue(recipes.named("moco_cifar_symmetric"))
    assert "Within 4 steps" in symmetric  # 4,096 keys, 2 x 512 a step
    assert random_queue(recipes.named("moco_v3_r50_300")) == random_queue(recipes.named("memory_bank_nce")) == []


@pytest.mark.parametrize(("images", "init", "few"), [(64, None, True), (64, "weights.pth", False), (1000, None, False)])
def test_few_images_without_initial_weights_give_a_caution(images, init, few):
    recipe, given = recipes.auto(images, side=256, accelerated=False), PictureList([torch.zeros(1)] * images)
    rows = plan_rows(recipe, given, clock_of(recipe, images), CPU, Path("run"), init=init)
    assert any("images are few" in text for title, text in rows if title == "caution") is few
    assert (("weights", f"from {init}") in rows) is (init is not None)
