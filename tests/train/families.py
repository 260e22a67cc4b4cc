"""Recipes of every method, as changes to the recipe `tiny`."""

from moco.recipe import Recipe
from moco.schedule import Cosine

V3 = {
    "method.dictionary": "batch", "method.size": None, "method.bn": "sync", "method.symmetric": True,
    "method.predictor": "mlp", "method.scale_loss": True, "method.momentum": Cosine(0.9, stop=1.0),
    "encoder.head": "projector2", "encoder.hidden": 16, "optim.optimizer": "lars",
}  # fmt: skip

BANK = {"method.dictionary": "bank", "method.key_encoder": "none", "method.bn": "split"}

IN_BATCH = {"method.dictionary": "batch", "method.size": None}

FAMILY = {
    "MoCo": {},
    "end-to-end": IN_BATCH | {"method.key_encoder": "shared"},
    "end-to-end, second encoder": IN_BATCH | {"method.key_encoder": "second"},
    "end-to-end with a ViT": IN_BATCH | {"method.key_encoder": "shared", "encoder.name": "vit_micro",
                             "encoder.stem": "7x7/2+pool", "encoder.width": 1.0},  # no buffer at all
    "end-to-end, in pieces": IN_BATCH | {"method.key_encoder": "shared", "optim.accumulate": 2, "optim.cached": True},
    "memory bank": BANK,
    "memory bank, one view": BANK | {"data.views": "the first"},
    "memory bank, NCE": BANK | {"method.loss": "nce", "method.negatives": "each"},
    "v3": V3,
    "v3 with a ViT": V3 | {"encoder.name": "vit_micro", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0,
                           "encoder.freeze_patch": True, "optim.optimizer": "adamw"},
}  # fmt: skip


def of_family(tiny: Recipe, name: str) -> Recipe:
    changes = FAMILY[name]
    return tiny.but(name, changes | ({"data.views": tiny.data.views[:1]} if "data.views" in changes else {}))
