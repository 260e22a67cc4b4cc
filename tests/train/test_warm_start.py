"""--init with weights that were trained on: the run goes on where they left off, with all that they bring."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from moco import recipes
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import find_images
from moco.method import Contrast, MomentumEncoder, Queue
from moco.recipe import Recipe
from moco.rng import fold
from moco.train import build, resume
from moco.train.after_step import Stopped
from moco.train.build import contrast_for, in_format
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunFolder
from moco.train.warm_start import refill
from moco.weights.export import export
from moco.weights.import_file import import_weights
from tests.train.helpers import StopAt, assert_same, final_state
from tests.weights import reference_files

CPU = torch.device("cpu")
K, N = 128, 32
RECIPE = recipes.named("demo").but(
    "small",
    {
        "encoder.head": "mlp", "encoder.width": 0.125, "encoder.dim": 32, "data.size": 16, "data.eval_resize": 16,
        "method.size": K, "method.temperature": 0.2, "optim.batch_size": N, "optim.epochs": 24,
    },
)  # fmt: skip
SHORT = RECIPE.but("short", {"optim.epochs": 1, "seed": 5})


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 pictures that can be told apart: nine blobs of colour each."""
    folder, rng = tmp_path_factory.mktemp("blobs"), np.random.default_rng(0)
    for i in range(256):
        pixels = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        pixels.resize((24, 24), Image.Resampling.BILINEAR).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def original(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned for some seconds; beside it its whole and its stripped official file, and the import."""
    folder = tmp_path_factory.mktemp("original")
    torch.set_num_threads(1)
    pretrain(blobs, folder / "run", recipe=RECIPE, device="cpu")
    export(folder / "run", to="fair", out=folder / "whole.pth.tar")
    content = torch.load(folder / "whole.pth.tar", weights_only=True)
    torch.save(reference_files.stripped(content, keep="encoder_q."), folder / "stripped.pth.tar")
    import_weights(folder / "whole.pth.tar", out=folder / "imported", architecture=RECIPE.encoder)
    return folder


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in RunFolder(run).metrics() if "loss" in record]


def first_loss(blobs: Path, out: Path, init: Path | None) -> float:
    return losses(pretrain(blobs, out, recipe=SHORT, init=init, device="cpu").path)[0]


@pytest.fixture(scope="module")
def left_off(blobs: Path, original: Path) -> float:
    """The loss of the original's last state, with its own f_k and queue, on the first mini-batch of the new run."""
    contrast = contrast_for(SHORT, CPU, num_images=256, model=None, init=None, say=lambda _: None)
    contrast.load_state_dict(final_state(original / "run")["model"])
    loader = ViewLoader(
        find_images([blobs]), SHORT.data, batch_size=N, seed=SHORT.seed, steps=range(1), workers=0, device=CPU,
        quarantine=Quarantine(None, None, 256),
    )  # fmt: skip
    views, ids = next(in_format(loader, SHORT))
    rng = torch.Generator().manual_seed(fold(SHORT.seed, 0))
    return sum(contrast(part, rng).loss.item() for part in contrast.parts(views, ids, rng))


def test_the_first_run_has_learned(original: Path, left_off: float) -> None:
    assert np.mean(losses(original / "run")[-8:]) < RECIPE.collapse_level - 0.4
    assert left_off < RECIPE.collapse_level - 0.4


@pytest.mark.parametrize("init", ["whole.pth.tar", "imported", "run"])
def test_with_f_k_and_queue_the_loss_is_that_of_the_first_run(blobs, original, left_off, tmp_path, init) -> None:
    assert first_loss(blobs, tmp_path / "run", original / init) == pytest.approx(left_off, abs=1e-5)


def test_from_a_stripped_file_the_loss_starts_near_that_of_the_first_run(blobs, original, left_off, tmp_path) -> None:
    assert first_loss(blobs, tmp_path / "run", original / "stripped.pth.tar") == pytest.approx(left_off, abs=0.3)


def test_without_the_refill_the_loss_starts_far_below(blobs, original, left_off, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(resume, "refill", lambda *_, **__: [])
    first = first_loss(blobs, tmp_path / "run", original / "stripped.pth.tar")
    assert first < left_off - 1.5  # random keys are no opponents


def test_from_random_weights_the_loss_starts_far_below_too(blobs, left_off, tmp_path) -> None:
    assert first_loss(blobs, tmp_path / "run", None) < left_off - 1


def started(recipe: Recipe, init: Path) -> tuple[Contrast, str]:
    """The networks before the first step, and what was said."""
    said: list[str] = []
    return contrast_for(recipe, CPU, num_images=256, model=None, init=init, say=said.append), "\n".join(said)


def tensors(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)["state_dict"]


def test_f_k_and_the_queue_are_those_of_the_file(original) -> None:
    contrast, said = started(SHORT, original / "whole.pth.tar")
    state = tensors(original / "whole.pth.tar")
    assert isinstance(contrast.key_encoder, MomentumEncoder)
    assert isinstance(contrast.dictionary, Queue)
    f_k = contrast.key_encoder.module.state_dict()
    assert torch.equal(f_k["backbone.conv1.weight"], state["module.encoder_k.conv1.weight"])
    assert torch.equal(f_k["backbone.bn1.running_mean"], state["module.encoder_k.bn1.running_mean"])
    assert torch.equal(f_k["head.2.bias"], state["module.encoder_k.fc.2.bias"])
    assert not torch.equal(f_k["head.2.bias"], contrast.encoder.get_parameter("head.2.bias"))
    assert torch.equal(contrast.dictionary.keys, state["module.queue"].T)
    assert contrast.dictionary.oldest == state["module.queue_ptr"].item()
    assert not any(parameter.requires_grad for parameter in contrast.key_encoder.parameters())
    for sentence in (
        "f_k is from the file",
        "The queue's 128 keys are from the file",
        "The optimizer's state in the file was not loaded",
    ):
        assert sentence in said


def test_keys_of_the_file_have_no_image_ids(original) -> None:
    queue = started(SHORT, original / "run")[0].dictionary  # whose ids and steps were those of another run
    assert isinstance(queue, Queue)
    assert set(queue.ids.tolist()) == {-1}
    assert set(queue.born.tolist()) == {0}


def test_a_missing_f_k_is_a_copy_of_f_q(original) -> None:
    contrast, said = started(SHORT, original / "stripped.pth.tar")
    assert isinstance(contrast.key_encoder, MomentumEncoder)
    f_q, f_k = contrast.encoder.state_dict(), contrast.key_encoder.module.state_dict()
    assert all(torch.equal(f_q[key], f_k[key]) for key in f_q)
    for sentence in ("and its head too", "f_k is a copy of f_q: there is none in the file", "no queue in the file"):
        assert sentence in said


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({"method.size": 64}, ["f_k is from the file", "queue was not loaded: it is 128 x 32, and this run's 64 x 32"]),
        (
            {"encoder.head": "linear"},
            ["f_k is a copy of f_q: the file's has other layers", "keys are from another head"],
        ),
    ],
)
def test_parts_that_do_not_fit_are_left_out_and_reported(original, changes, sentences) -> None:
    contrast, said = started(SHORT.but(None, changes), original / "whole.pth.tar")
    assert [sentence for sentence in sentences if sentence not in said] == []
    assert isinstance(contrast.dictionary, Queue)
    assert set(contrast.dictionary.born.tolist()) == {-1}


V3 = {
    "method.dictionary": "batch", "method.size": None, "method.symmetric": True, "method.bn": "plain",
    "method.predictor": "mlp", "encoder.head": "projector2", "encoder.hidden": reference_files.HIDDEN,
    "encoder.name": "resnet18", "encoder.stem": "7x7/2+pool", "encoder.dim": reference_files.DIM,
}  # fmt: skip


def test_the_predictor_of_a_v3_file_is_loaded(tmp_path) -> None:
    content = reference_files.v3_resnet()
    torch.save(content, tmp_path / "v3.pth.tar")
    contrast, said = started(SHORT.but(None, V3), tmp_path / "v3.pth.tar")
    predictor = contrast.predictor.state_dict()
    for name in ("0.weight", "1.running_var", "3.weight"):
        assert torch.equal(predictor[name], content["state_dict"][f"module.predictor.{name}"])
    assert "The predictor is from the file" in said
    assert "queue" not in said.partition("and its head too")[2]  # v3 has none


def test_f_k_of_the_authors_file_gets_the_momentum_update_of_the_first_step(tmp_path) -> None:
    content = reference_files.v3_resnet()
    torch.save(content, tmp_path / "v3.pth.tar")
    changes = V3 | {"method.momentum": {"kind": "cosine", "start": 0.75, "stop": 1.0}}
    contrast, said = started(SHORT.but(None, changes), tmp_path / "v3.pth.tar")
    assert isinstance(contrast.key_encoder, MomentumEncoder)
    assert "f_k is from the file, with one momentum update (m = 0.75)" in said
    f_q, f_k = (content["state_dict"][f"module.{name}.conv1.weight"] for name in ("base_encoder", "momentum_encoder"))
    torch.testing.assert_close(contrast.key_encoder.module.backbone.conv1.weight, 0.75 * f_k + 0.25 * f_q)
    statistics = content["state_dict"]["module.momentum_encoder.bn1.running_mean"]
    assert torch.equal(contrast.key_encoder.module.backbone.bn1.running_mean, statistics)  # not part of Eqn. (2)


def test_a_missing_predictor_is_reported(tmp_path) -> None:
    torch.save(reference_files.stripped(reference_files.v3_resnet(), keep="base_encoder."), tmp_path / "v3.pth.tar")
    said = started(SHORT.but(None, V3), tmp_path / "v3.pth.tar")[1]
    assert "The predictor has random weights: there is none in the file" in said


class TestRefill:
    """The keys that a queue is filled with."""

    @pytest.fixture
    def contrast(self, original: Path) -> Contrast:
        return started(SHORT, original / "stripped.pth.tar")[0]

    def batches(self, steps: range) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        """Of each step other images: the views of the queries are of no use, and NaN."""
        made = []
        for step in steps:
            x = torch.randn(N, 3, 16, 16, generator=torch.Generator().manual_seed(step))
            made.append(([torch.full_like(x, torch.nan), x], torch.arange(step * N, step * N + N)))
        return made

    def test_the_keys_are_f_ks_of_the_last_images_of_the_epoch(self, contrast: Contrast) -> None:
        asked: list[range] = []
        said = refill(contrast, lambda steps: (asked.append(steps), self.batches(steps))[1], SHORT, steps_per_epoch=10)
        queue = contrast.dictionary
        assert isinstance(queue, Queue)
        assert asked == [range(6, 10)]  # 4 x 32 keys
        assert queue.ids.tolist() == list(range(6 * N, 10 * N))
        assert set(queue.born.tolist()) == {0}
        assert queue.oldest == 0
        assert said == ["The queue was filled by f_k with the keys of 128 images before the first step"]

    def test_the_keys_are_computed_with_the_bn_statistics_of_their_shuffled_group(self, contrast: Contrast) -> None:
        assert isinstance(contrast.key_encoder, MomentumEncoder)
        assert isinstance(contrast.dictionary, Queue)
        (_, x), _ = self.batches(range(6, 7))[0]
        order = torch.randperm(N, generator=torch.Generator().manual_seed(fold(SHORT.seed, 6)))
        expected = torch.empty(N, 32)
        f_k = contrast.key_encoder.module.train()
        with torch.no_grad():
            for group in order.chunk(2):  # each group by itself, in train mode
                expected[group] = torch.nn.functional.normalize(f_k(x[group]), dim=1)
        refill(contrast, self.batches, SHORT, steps_per_epoch=10)
        torch.testing.assert_close(contrast.dictionary.keys[:N], expected, rtol=1e-4, atol=1e-5)

    def test_the_refill_changes_no_parameter_and_keys_have_no_gradient(self, contrast: Contrast) -> None:
        before = {name: parameter.detach().clone() for name, parameter in contrast.named_parameters()}
        refill(contrast, self.batches, SHORT, steps_per_epoch=10)
        assert all(torch.equal(before[name], parameter) for name, parameter in contrast.named_parameters())
        assert not contrast.dictionary.get_buffer("keys").requires_grad

    def test_a_queue_that_is_no_multiple_of_the_mini_batch_is_filled(self, original: Path) -> None:
        recipe = SHORT.but(None, {"method.size": 100})
        contrast, _ = started(recipe, original / "stripped.pth.tar")
        refill(contrast, self.batches, recipe, steps_per_epoch=10)
        assert isinstance(contrast.dictionary, Queue)
        assert sorted(contrast.dictionary.ids.tolist()) == list(range(10 * N - 100, 10 * N))

    def test_a_queue_from_the_file_is_not_refilled(self, original: Path) -> None:
        contrast, _ = started(SHORT, original / "whole.pth.tar")
        before = contrast.dictionary.get_buffer("keys").clone()
        assert refill(contrast, self.batches, SHORT, steps_per_epoch=10) == []
        assert torch.equal(contrast.dictionary.get_buffer("keys"), before)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(blobs, original, tmp_path) -> None:
    init = original / "stripped.pth.tar"
    whole = pretrain(blobs, tmp_path / "whole", recipe=SHORT, init=init, device="cpu").path
    with pytest.raises(Stopped):
        pretrain(blobs, tmp_path / "parts", recipe=SHORT, init=init, device="cpu", reporter=StopAt(3))
    parts = pretrain(blobs, tmp_path / "parts", recipe=SHORT, device="cpu").path
    assert "random keys" not in (parts / "train.log").read_text()  # f_k has filled the queue
    assert_same(final_state(parts), final_state(whole))


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_weights_again(blobs, original, tmp_path) -> None:
    init = original / "stripped.pth.tar"
    whole = pretrain(blobs, tmp_path / "run", recipe=SHORT, init=init, device="cpu").path
    expected = final_state(whole)
    shutil.rmtree(whole / "checkpoints")  # as after a kill in its first minute: steps are logged, nothing is saved
    (whole / "checkpoints").mkdir()
    (whole / "saved.json").write_text('{"first_step": null}')
    (whole / "finished.json").unlink()
    shutil.rmtree(whole / "encoder")
    assert_same(final_state(pretrain(blobs, whole, recipe=SHORT, device="cpu").path), expected)


def test_a_run_without_init_loads_and_fills_nothing(blobs, tmp_path, monkeypatch) -> None:
    def never(*_: object, **__: object) -> list[str]:
        raise AssertionError("nothing is taken over, and nothing filled")

    expected = final_state(pretrain(blobs, tmp_path / "one", recipe=SHORT, device="cpu").path)
    monkeypatch.setattr(build, "load_other_parts", never)
    monkeypatch.setattr(resume, "refill", never)
    assert_same(final_state(pretrain(blobs, tmp_path / "other", recipe=SHORT, device="cpu").path), expected)
