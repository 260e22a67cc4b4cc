"""From a folder to a run folder, and what can be in the way."""

import csv
import json

import pytest
import torch
from sample_pictures import make_pictures
from torch import nn
from torchvision.models import resnet18

import moco
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from tests.train.helpers import assert_same, final_state, losses


def test_a_run_writes_the_documented_files(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    there = {path.name for path in run.path.iterdir()}
    assert {"recipe.json", "provenance.json", "metrics.jsonl", "checkpoints", "encoder", "finished.json"} <= there
    assert {path.name for path in (run.path / "encoder").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert [step for step, _ in losses(run.path)] == list(range(1, 11))
    assert RunFolder(run.path).recipe() == tiny
    facts = json.loads((run.path / "provenance.json").read_text())[0]
    assert facts["images"] == 40
    assert facts["versions"]["torch"] == torch.__version__


def test_the_encoder_that_is_saved_is_the_query_encoder(pictures, tiny, tmp_path):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    state = final_state(run.path)["model"]
    for name, tensor in moco.load(run.path).encoder.backbone.state_dict().items():
        assert torch.equal(tensor, state[f"encoder.backbone.{name}"])


def test_training_changes_the_query_encoder_and_the_key_encoder_and_fills_the_queue(pictures, tiny, tmp_path):
    state = final_state(pretrain(pictures, tmp_path / "run", recipe=tiny).path)["model"]
    assert (state["dictionary.born"] > 0).all()  # 10 steps of 8 keys went through a queue of 20
    weight = "backbone.conv1.weight"
    assert not torch.equal(state[f"encoder.{weight}"], state[f"key_encoder.module.{weight}"])


def test_a_broken_file_is_listed_and_the_run_finishes(pictures, tiny, tmp_path):
    (pictures / "0007.png").write_bytes(b"not a picture")
    run = pretrain(pictures, tmp_path / "run", recipe=tiny)
    rows = list(csv.reader((run.path / "bad_images.csv").read_text().splitlines()))
    assert rows[0] == ["name", "reason"]
    assert [name for name, _ in rows[1:]] == ["0007.png"]


def test_scores_during_training_do_not_change_it(pictures, tiny, tmp_path):
    labelled = make_pictures(tmp_path / "labelled", 40, classes=2)
    pretrain(pictures, tmp_path / "plain", recipe=tiny)
    run = pretrain(pictures, tmp_path / "scored", recipe=tiny, eval_data=labelled, eval_every=1)
    log = (run.path / "train.log").read_text()
    assert "kNN score: 32 labelled images, 8 test images; one in 5 of each class" in log
    assert_same(final_state(tmp_path / "plain"), final_state(tmp_path / "scored"))
    scores = [(record["step"], record["knn"]) for record in run.metrics() if "knn" in record]
    assert [step for step, _ in scores] == [0, 5, 10]
    assert all(0 <= score <= 100 for _, score in scores)


def test_another_seed_gives_another_run(pictures, tiny, tmp_path):
    runs = [pretrain(pictures, tmp_path / str(seed), recipe=tiny, seed=seed) for seed in (0, 1)]
    assert losses(runs[0].path) != losses(runs[1].path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_runs_on_a_cpu_and_keeps_weights_and_queue_in_float32(pictures, tiny, tmp_path, precision):
    run = pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"compute.precision": precision})
    state = final_state(run.path)["model"]
    assert all(x.dtype == torch.float32 for x in state.values() if x.is_floating_point())
    assert all(torch.isfinite(torch.tensor(loss)) for _, loss in losses(run.path))


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])  # on a CPU torch leaves them out
@pytest.mark.usefixtures("without_shape_checks")
def test_compiled_encoders_start_with_the_same_losses(pictures, tiny, tmp_path, graphs):
    """Sums in another order: the first losses agree to rounding, and the differences grow from step to step."""
    plain = pretrain(pictures, tmp_path / "plain", recipe=tiny)
    settings = {"compute.compile": True, "compute.cuda_graphs": graphs}
    compiled = pretrain(pictures, tmp_path / "compiled", recipe=tiny, settings=settings)
    for (_, a), (_, b) in list(zip(losses(plain.path), losses(compiled.path), strict=True))[:3]:
        assert a == pytest.approx(b, rel=1e-4)


def test_init_starts_both_encoders_from_the_weights_of_a_file(pictures, tmp_path, tiny):
    network = resnet18()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    recipe = tiny
    said = []

    class Listen(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    still = {"optim.lr": 0.0, "optim.epochs": 1, "optim.weight_decay": 0.0}
    run = pretrain(
        pictures,
        tmp_path / "run",
        recipe=recipe.but(None, still),
        model="torchvision/resnet18",
        init=tmp_path / "weights.pth",
        reporter=Listen(),
    )
    state = final_state(run.path)["model"]
    for name, parameter in network.named_parameters():
        if not name.startswith("fc."):
            assert torch.equal(state[f"encoder.backbone.{name}"], parameter)
            assert torch.equal(state[f"key_encoder.module.backbone.{name}"], parameter)
    assert any("weights.pth" in line for line in said)


def test_a_users_module_and_dataset_are_accepted(tmp_path, tiny):
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.randint(
                0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(index)
            ), 0

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    recipe = tiny
    run = pretrain(Noise(), tmp_path / "run", recipe=recipe, model=model)
    assert len(losses(run.path)) == 10


def test_a_dry_run_writes_no_file(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "run", recipe=tiny, dry_run=True)
    assert not (tmp_path / "run").exists()


def test_skipped_files_are_in_the_plan_the_log_and_the_provenance(pictures, tiny, tmp_path):
    for i in range(3):
        (pictures / f"{i}.heic").touch()
    (pictures / ".hidden.png").touch()
    boxes = []

    class Listens(Silent):
        def box(self, title: str, rows: list[tuple[str, str]]) -> None:
            boxes.extend(rows)

    run = pretrain(pictures, tmp_path / "run", recipe=tiny, epochs=1, reporter=Listens())
    skipped = "3 x .heic file, 1 x hidden (convert HEIC to JPEG or PNG, with pillow-heif or heif-convert)"
    assert ("skipped", skipped) in boxes
    assert f"plan: skipped: {skipped}" in (run.path / "train.log").read_text()
    assert json.loads((run.path / "provenance.json").read_text())[0]["skipped"] == {".heic file": 3, "hidden": 1}


def test_the_log_has_the_messages_of_the_console(pictures, tiny, tmp_path):
    text = (pretrain(pictures, tmp_path / "run", recipe=tiny).path / "train.log").read_text()
    assert "plan: images: 40" in text
    said = " ".join(text.split())
    assert "The queue starts with random keys" in said
    assert "Within 3 steps, keys of images replace the random ones" in said  # 20 keys, 8 a step
    assert "done: encoder:" in text


def test_a_learning_rate_of_zero_gives_a_caution_in_the_plan(pictures, tiny, tmp_path):
    rows: list[tuple[str, str]] = []

    class Heard(Silent):
        def box(self, title, lines):
            rows.extend(lines)

    pretrain(pictures, tmp_path / "run", recipe=tiny, settings={"optim.lr": 0.0}, dry_run=True, reporter=Heard())
    assert ("caution", "the learning rate is 0 throughout (optim.lr): the encoder learns nothing") in rows
