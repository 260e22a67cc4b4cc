"""Every number of the recipes against the papers and the released code, read off once more, in tables of their own."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from moco import recipes
from moco.data.sources.open import open_images
from moco.encoders import build
from moco.recipe import Recipe, RecipeError
from moco.train.resolve_recipe import check_fits, resolve

# ---------------------------------------------------------------------------------------------------------------------
# Papers: v1 = arXiv:1911.05722, v2 = arXiv:2003.04297, v3 = arXiv:2104.02057. Released: facebookresearch/moco (v1, v2)
# and facebookresearch/moco-v3 (CONFIG.md, main_moco.py, builder.py, optimizer.py). lr is not among these: see below.

V1 = {  # v1 Sec. 3.3, 4, 4.1; main_moco.py defaults
    "encoder.name": "resnet50", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0, "encoder.dilate_last": False,
    "encoder.zero_init": False, "encoder.head": "linear", "encoder.dim": 128,
    "method.key_encoder": "momentum", "method.dictionary": "queue", "method.size": 65536, "method.loss": "infonce",
    "method.scale_loss": False, "method.temperature": 0.07, "method.momentum.value": 0.999, "method.symmetric": False,
    "method.predictor": "none", "method.bn": "shuffle", "method.bn_groups": 8,
    "optim.optimizer": "sgd", "optim.momentum": 0.9, "optim.weight_decay": 1e-4, "optim.batch_size": 256,
    "optim.epochs": 200, "optim.accumulate": 1, "optim.cached": False,
    "data.size": 224, "data.eval_resize": 256, "data.mean": (0.485, 0.456, 0.406), "data.std": (0.229, 0.224, 0.225),
    "compute.precision": "fp32",
}  # fmt: skip
V2 = V1 | {"encoder.head": "mlp", "method.temperature": 0.2}  # --mlp --moco-t 0.2 --aug-plus --cos
V3_R50 = V1 | {  # CONFIG.md and the defaults of main_moco.py; builder.py for the heads
    "encoder.zero_init": True, "encoder.head": "projector2", "encoder.hidden": 4096, "encoder.dim": 256,
    "encoder.head_bn": True,
    "method.dictionary": "batch", "method.size": None, "method.scale_loss": True, "method.temperature": 1.0,
    "method.symmetric": True, "method.predictor": "mlp", "method.bn": "sync",
    "method.momentum.start": 0.99, "method.momentum.stop": 1.0, "method.momentum.whole_epochs": False,
    "optim.optimizer": "lars", "optim.trust": 1e-3, "optim.weight_decay": 1e-6, "optim.batch_size": 4096,
    "optim.epochs": 100, "compute.precision": "fp16",
}  # fmt: skip
for _gone in ("method.momentum.value", "method.bn_groups"):
    del V3_R50[_gone]
V3_VIT = V3_R50 | {  # CONFIG.md: --optimizer=adamw --weight-decay=.1 --epochs=300 --stop-grad-conv1 --moco-t=.2
    "encoder.name": "vit_small", "encoder.zero_init": False, "encoder.patch": None, "encoder.position": "sincos",
    "encoder.freeze_patch": True, "encoder.head": "projector3", "method.predictor": "mlp_bn",
    "method.temperature": 0.2, "optim.optimizer": "adamw", "optim.weight_decay": 0.1, "optim.epochs": 300,
}  # fmt: skip
END_TO_END = V1 | {"method.key_encoder": "shared", "method.dictionary": "batch", "method.size": None}  # v1 Fig. 2(a)
BANK = V1 | {  # v1 Fig. 2(b), Sec. 3.3: no shuffling; arXiv:1805.01978: momentum 0.5 of a key
    "method.key_encoder": "none", "method.dictionary": "bank", "method.bank_momentum": 0.5,
    "method.negatives": "shared", "method.bn": "split",
}  # fmt: skip
CIFAR = V1 | {  # the demo notebook
    "encoder.name": "resnet18", "encoder.stem": "3x3", "method.size": 4096, "method.temperature": 0.1,
    "method.momentum.value": 0.99, "optim.weight_decay": 5e-4, "optim.batch_size": 512, "data.size": 32,
    "data.mean": (0.4914, 0.4822, 0.4465), "data.std": (0.2023, 0.1994, 0.2010), "data.eval_resize": 32,
}  # fmt: skip

NUMBERS: dict[str, dict[str, Any]] = {
    "moco_v1_r50": V1,
    "moco_v1_rx50": V1 | {"encoder.name": "resnext50_32x8d"},  # v1 Table 1
    "moco_v1_r50w2x": V1 | {"encoder.width": 2.0},
    "moco_v1_r50w4x": V1 | {"encoder.width": 4.0},
    "moco_v1_ig1b": V1 | {  # v1 Sec. 4: 64 GPUs, mini-batch 1024; 1.25 M iterations of 940 M images
        "method.bn_groups": 64, "optim.batch_size": 1024,
        "optim.epochs": pytest.approx(1.25e6 * 1024 / 940e6, rel=1e-5),
    },
    "moco_v2_r50": V2,
    "moco_v2_r50_800": V2 | {"optim.epochs": 800},
    "moco_v3_r50_100": V3_R50,
    "moco_v3_r50_300": V3_R50 | {"optim.epochs": 300},
    "moco_v3_r50_1000": V3_R50 | {
        "optim.epochs": 1000, "optim.weight_decay": 1.5e-6, "method.momentum.start": 0.996,
    },
    "moco_v3_vit_small": V3_VIT,
    "moco_v3_vit_base": V3_VIT | {"encoder.name": "vit_base"},
    "moco_v3_vit_large": V3_VIT | {"encoder.name": "vit_large"},
    "end_to_end_256": END_TO_END,
    "end_to_end_512": END_TO_END | {"optim.batch_size": 512},
    "end_to_end_1024": END_TO_END | {"optim.batch_size": 1024},
    "memory_bank_infonce": BANK,
    "memory_bank_nce": BANK | {"method.loss": "nce", "method.size": 4096},
    "moco_cifar": CIFAR,
    "moco_cifar_symmetric": CIFAR | {"method.symmetric": True},
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# Views: (least area, hue, saturation, p of jitter, p of grey, grey first, p of blur, p of solarize), main_moco.py each

AREAS = {"v1": 0.2, "v2": 0.2, "v3": 0.2, "v3_vit": 0.08, "cifar": 0.08}
AUGMENTATIONS = {
    "v1": [(0.4, 0.4, 1.0, 0.2, True, 0.0, 0.0)] * 2,
    "v2": [(0.1, 0.4, 0.8, 0.2, False, 0.5, 0.0)] * 2,  # --aug-plus
    "v3": [(0.1, 0.2, 0.8, 0.2, False, 1.0, 0.0), (0.1, 0.2, 0.8, 0.2, False, 0.1, 0.2)],
    "cifar": [(0.1, 0.4, 0.8, 0.2, False, 0.0, 0.0)] * 2,  # the notebook
}
AUGMENTATIONS["v3_vit"] = AUGMENTATIONS["v3"]


def views_of(name: str) -> str:
    if name.startswith("moco_v3"):
        return "v3_vit" if "vit" in name else "v3"
    return "cifar" if "cifar" in name else "v2" if "v2" in name else "v1"


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_the_papers(name: str):
    fields = recipes.named(name).fields()
    assert {field: fields[field] for field in NUMBERS[name]} == NUMBERS[name]


def test_every_recipe_of_a_paper_is_in_the_table():
    assert set(recipes.RECIPES) - set(NUMBERS) == {"demo"}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_view_is_main_mocos(name: str):
    for view, expected in zip(recipes.named(name).data.views, AUGMENTATIONS[views_of(name)], strict=True):
        jitter = view.jitter
        assert (
            jitter.hue, jitter.saturation, jitter.p, view.grey, view.grey_first, view.blur, view.solarize,
        ) == expected  # fmt: skip
        assert (jitter.brightness, jitter.contrast, view.flip) == (0.4, 0.4, 0.5)
        assert view.crop_area == (AREAS[views_of(name)], 1.0)
        assert view.crop_ratio == pytest.approx((3 / 4, 4 / 3))
        assert view.blur == 0 or view.blur_sigma == (0.1, 2.0)


def lr(recipe: Recipe, epoch: float) -> float:
    return recipe.optim.lr(epoch, recipe.optim.epochs)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("moco_v1_r50", 0.03), ("moco_v1_rx50", 0.03), ("moco_v1_r50w2x", 0.03), ("moco_v1_r50w4x", 0.03),
        ("memory_bank_infonce", 0.03), ("memory_bank_nce", 0.03),
        ("end_to_end_256", 0.03), ("end_to_end_512", 0.06), ("end_to_end_1024", 0.12),  # 0.03 x N / 256
    ],
)  # fmt: skip
def test_the_rate_of_v1_drops_tenfold_at_120_and_at_160_epochs(name: str, rate: float):
    recipe = recipes.named(name)
    epochs = {0: rate, 119.999: rate, 120: rate / 10, 159.999: rate / 10, 160: rate / 100, 199.999: rate / 100}
    assert {epoch: lr(recipe, epoch) for epoch in epochs} == pytest.approx(epochs, rel=1e-12)


@pytest.mark.parametrize(("name", "epochs"), [("moco_v2_r50", 200), ("moco_v2_r50_800", 800)])
def test_the_rate_of_v2_is_half_a_cosine_set_once_an_epoch(name: str, epochs: int):
    recipe = recipes.named(name)
    for epoch in (0, 1, epochs // 2, epochs - 1):
        expected = 0.03 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))  # main_moco.py, adjust_learning_rate
        assert lr(recipe, epoch) == pytest.approx(expected, rel=1e-12)
        assert lr(recipe, epoch + 0.999) == lr(recipe, epoch)
    assert lr(recipe, 0) == 0.03
    assert lr(recipe, epochs - 1) > 0


@pytest.mark.parametrize("name", ["moco_cifar", "moco_cifar_symmetric"])
def test_the_rate_of_the_notebook_counts_epochs_from_one(name: str):
    recipe = recipes.named(name)
    for epoch in (1, 2, 100, 200):
        expected = 0.06 * 0.5 * (1 + math.cos(math.pi * epoch / 200))
        assert lr(recipe, epoch - 1) == pytest.approx(expected, rel=1e-12, abs=1e-16)


V3_RATES = {  # CONFIG.md: base rate x 4096 / 256, epochs of warm-up, epochs
    "moco_v3_r50_100": (9.6, 10, 100),
    "moco_v3_r50_300": (4.8, 10, 300),
    "moco_v3_r50_1000": (4.8, 10, 1000),
    "moco_v3_vit_small": (2.4e-3, 40, 300),
    "moco_v3_vit_base": (2.4e-3, 40, 300),
    "moco_v3_vit_large": (2.4e-3, 40, 300),
}


@pytest.mark.parametrize("name", V3_RATES)
def test_the_rate_of_v3_starts_at_exactly_zero(name: str):
    assert lr(recipes.named(name), 0) == 0.0


@pytest.mark.parametrize("name", V3_RATES)
def test_the_rate_of_v3_warms_up_in_a_line_and_falls_by_half_a_cosine_to_zero(name: str):
    recipe, (rate, warmup, epochs) = recipes.named(name), V3_RATES[name]
    assert lr(recipe, warmup / 4) == pytest.approx(rate / 4, rel=1e-12)
    assert lr(recipe, warmup) == pytest.approx(rate, rel=1e-12)
    for epoch in (warmup + 0.01, (warmup + epochs) / 2, epochs - 0.01):  # at every step, not once an epoch
        expected = rate * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
        assert lr(recipe, epoch) == pytest.approx(expected, rel=1e-9)
    assert lr(recipe, epochs) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("name", "start"), [(name, 0.996 if "1000" in name else 0.99) for name in V3_RATES])
def test_the_momentum_of_v3_goes_to_one_by_half_a_cosine(name: str, start: float):
    recipe, epochs = recipes.named(name), V3_RATES[name][2]
    m = recipe.method.momentum
    assert m(0, epochs) == pytest.approx(start, rel=1e-15)
    assert m(epochs, epochs) == 1.0
    for done in (0.001, 0.25, 0.5, 0.999):
        expected = 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * done))  # main_moco.py, adjust_moco_momentum
        assert m(done * epochs, epochs) == pytest.approx(expected, rel=1e-14)


def test_the_rate_on_a_billion_images_falls_by_a_tenth_after_every_62_500_steps():
    recipe, per_epoch = recipes.named("moco_v1_ig1b"), 940_000_000 // 1024
    assert round(recipe.optim.epochs * per_epoch) == 1_250_000
    for i in range(20):  # v1 Sec. 4: 0.12, x 0.9 after every 62,500 iterations
        for step in (62_500 * i, 62_500 * i + 1, 62_500 * (i + 1) - 1):
            assert lr(recipe, step / per_epoch) == pytest.approx(0.12 * 0.9**i, rel=1e-12)


def test_a_memory_bank_that_is_larger_than_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**16)  # pages of 64 KiB, 65,536 of them: 4.3 GB
    bank = recipes.named("memory_bank_nce")
    check_fits(bank, 1_281_167)  # 656 MB
    with pytest.raises(RecipeError, match=r"takes 481 GB .* has 4 GB"):  # 940 million x 128 x 4 bytes
        check_fits(bank, 940_000_000)
    check_fits(recipes.named("moco_v1_ig1b"), 940_000_000)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_fits_the_images_that_it_is_for(name: str, pictures: Path):
    images = {"demo": 12_000, "moco_cifar": 50_000, "moco_cifar_symmetric": 50_000, "moco_v1_ig1b": 940_000_000}
    recipe = resolve(name, open_images(pictures), torch.device("cpu"), model=None, changes={})
    check_fits(recipe, images.get(name, 1_281_167))
    assert recipe.name == name


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_names_an_encoder_that_can_be_built_with_its_head(name: str):
    """On the meta device: shapes only, so that the widest one costs nothing."""
    recipe = recipes.named(name)
    with torch.device("meta"):
        encoder = build(recipe.encoder, size=recipe.data.size)
        out = encoder(torch.empty(2, 3, recipe.data.size, recipe.data.size))
    assert out.shape == (2, recipe.encoder.dim)
