"""Every method of the family is one recipe of one system: it trains, says what it is, and keeps what it needs."""

import pytest
import torch

from moco.method import NCE, Batch, CachedContrast, MemoryBank, MomentumEncoder
from moco.recipe import RecipeError
from moco.train import checkpoint
from moco.train.build import contrast_for
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from tests.train.families import BANK, FAMILY, IN_BATCH, of_family


class Heard(Silent):
    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self.rows += rows


@pytest.mark.parametrize("name", FAMILY)
def test_each_method_trains_with_a_finite_loss_and_changes_the_weights(name, pictures, tiny, tmp_path):
    recipe = of_family(tiny, name)
    run = pretrain(pictures, tmp_path / "run", recipe=recipe, device="cpu", workers=0)
    assert [record["step"] for record in run.metrics()] == list(range(1, 11))
    torch.manual_seed(0)
    state = checkpoint.read_checkpoint(checkpoint.newest_intact(run.path / "checkpoints"))["state"]["model"]
    begun = contrast_for(run.recipe, torch.device("cpu"), num_images=40, model=None, init=None, say=print)
    moved = {key: not torch.equal(tensor, state[key]) for key, tensor in begun.named_parameters()}
    assert sum(moved.values()) > 0.8 * len(moved)
    assert not (recipe.encoder.freeze_patch and moved["encoder.backbone.patch_embed.proj.weight"])
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())


@pytest.mark.parametrize(("name", "said"), [
    ("MoCo", "queue of 20 keys (50 % of the images)"),
    ("end-to-end", "the mini-batch's own 8 keys, by f_q itself"),
    ("end-to-end, in pieces", "in 2 pieces, two passes with the gradient of the whole"),
    ("memory bank", "memory bank of one key per image (40 x 8 float32 = 0.0 MiB"),
    ("memory bank, NCE", "20 negatives drawn for each query, nce"),
    ("v3", "the mini-batch's own 8 keys, by the momentum encoder"),
    ("v3", "one BN group over all ranks, symmetric"),
])  # fmt: skip
def test_the_plan_describes_the_dictionary(name, said, pictures, tiny, tmp_path):
    heard = Heard()
    pretrain(
        pictures, tmp_path / "run", recipe=of_family(tiny, name), device="cpu", dry_run=True, reporter=heard
    )  # fmt: skip
    assert said in " | ".join(text for _, text in heard.rows)


def test_the_recipe_makes_the_objects_of_its_method(tiny):
    made = {
        name: contrast_for(of_family(tiny, name), torch.device("cpu"), num_images=40, model=None, init=None, say=print)
        for name in FAMILY
    }
    assert isinstance(made["MoCo"].key_encoder, MomentumEncoder)
    assert made["end-to-end"].key_encoder is made["end-to-end"].encoder
    second = made["end-to-end, second encoder"]
    pairs = zip(second.encoder.parameters(), second.key_encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) and a is not b and b.requires_grad for a, b in pairs)
    assert isinstance(made["end-to-end, in pieces"], CachedContrast)
    assert isinstance(made["memory bank"].dictionary, MemoryBank)
    assert made["memory bank"].dictionary.keys.shape == (40, 8)
    assert isinstance(made["memory bank, NCE"].loss, NCE)
    assert isinstance(made["v3"].dictionary, Batch)
    assert made["v3"].loss_scale == 2 * tiny.method.temperature
    assert not made["v3 with a ViT"].encoder.backbone.patch_embed.proj.weight.requires_grad


@pytest.mark.parametrize(("changes", "said"), [
    (IN_BATCH | {"optim.accumulate": 2}, "set optim.cached=true"),
    ({"optim.cached": True}, "optim.cached needs method.dictionary=batch"),
    (BANK | {"method.symmetric": True}, "a memory bank has one for each image"),
    ({"method.loss": "nce"}, "need a memory bank"),
    ({"method.dictionary": "batch"}, "set method.size=null"),
    ({"method.key_encoder": "shared"}, "method.key_encoder=momentum"),
    (BANK | {"method.bn": "shuffle"}, "set method.bn=split"),
    ({"optim.accumulate": 4}, "must have whole BN groups"),
])  # fmt: skip
def test_settings_that_are_no_method_are_refused_with_advice(changes, said, tiny):
    with pytest.raises(RecipeError) as error:
        tiny.but(None, changes)
    assert said in str(error.value)
