"""Every family of networks that README and docs name trains and resumes under every mechanism.

Libraries' networks that have no small form are made small by their constructors, and given as modules.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from sample_pictures import make_pictures
from torch import nn
from torchvision import models

from moco import recipes
from moco.recipe import Recipe
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.stop_on_signals import Stopped
from tests.train.families import IN_BATCH, V3
from tests.train.helpers import StopAt, assert_same, final_state

Model = str | nn.Module


def torchvision_cnn() -> nn.Module:
    return models.ShuffleNetV2([1, 1, 1], [8, 16, 16, 16, 16])


def torchvision_vit() -> nn.Module:
    return models.VisionTransformer(32, 16, num_layers=1, num_heads=1, hidden_dim=16, mlp_dim=16)


def torchvision_swin() -> nn.Module:
    return models.SwinTransformer([4, 4], embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=[2, 2])


def timm_hybrid() -> nn.Module:
    """A ViT on the feature map of a ResNet."""
    stem = timm.create_model("test_resnet", features_only=True, out_indices=(2,))
    embed = timm.models.vision_transformer_hybrid.HybridEmbed
    return timm.models.VisionTransformer(
        img_size=32, num_classes=0, embed_dim=16, depth=1, num_heads=1,
        embed_layer=lambda **sizes: embed(stem, **sizes | {"patch_size": 1}),
    )  # fmt: skip


def own_with_bn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())


def own_without_bn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3))


NETWORKS: dict[str, Callable[[], Model]] = {
    "our ResNet": lambda: "resnet10",
    "our ViT": lambda: "vit_micro",
    "torchvision CNN": torchvision_cnn,
    "torchvision ViT": torchvision_vit,
    "torchvision Swin": torchvision_swin,
    "timm ConvNeXt": lambda: "timm/test_convnext",
    "timm ViT": lambda: "timm/test_vit",
    "timm hybrid": timm_hybrid,
    "own module with BN": own_with_bn,
    "own module without BN": own_without_bn,
}
MECHANISMS = {
    "v1": {},
    "v2": {"encoder.head": "mlp", "method.temperature": 0.2},
    "v3": V3,
    "end-to-end": IN_BATCH | {"method.key_encoder": "shared"},
    "bank": {"method.dictionary": "bank", "method.key_encoder": "none", "method.bn": "split"},
}


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 16 pictures."""
    return make_pictures(tmp_path_factory.mktemp("sixteen"), 16, side=32)


def two_steps(mechanism: str) -> Recipe:
    """A recipe whose run on 16 pictures has two steps."""
    sizes = {"encoder.dim": 8, "method.size": 8, "optim.batch_size": 8, "optim.epochs": 1, "compute.threads": 1}
    return recipes.named("demo").but("two steps", sizes | MECHANISMS[mechanism])


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_of_two_steps_is_resumed_after_the_first_to_the_same_bits(network, mechanism, sixteen, tmp_path):
    recipe = two_steps(mechanism)
    if network == "our ResNet":
        recipe = recipe.but(None, {"encoder.width": 0.0625})

    def run(out: str, reporter: Silent | None = None) -> Path:
        torch.manual_seed(0)  # of a module that is given
        return pretrain(
            sixteen, tmp_path / out, recipe=recipe, model=NETWORKS[network](), device="cpu", workers=0,
            reporter=reporter,
        ).path  # fmt: skip

    whole = run("whole")
    assert [record["step"] for record in RunFolder(whole).metrics()] == [1, 2]
    with pytest.raises(Stopped, match="after step 1 of 2"):
        run("resumed", StopAt(1))
    assert_same(final_state(run("resumed")), final_state(whole))
