"""Every row of `make bench` runs, at the size of a toy, and says what it compares. Never how long it took."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from benchmarks import apart, clocks, detector, evaluation, inputs, memory, peers_input, startup, whole
from benchmarks.measure import Result, Spent
from benchmarks.pictures import BYTES, jpegs, small_pngs
from moco import recipes
from moco.recipe import Recipe

TOY = 4  # images


def small_recipe() -> Recipe:
    changes = {
        "optim.batch_size": 4, "method.size": 8, "data.size": 32, "encoder.width": 0.25, "optim.epochs": 9,
    }  # fmt: skip
    return recipes.named("demo").but("toy", changes)


def toy_photos(folder: Path) -> Path:
    return jpegs(folder, 16, sizes=((48, 40),))


ONE_ROUND: dict[str, Callable[[], Iterator[Result]]] = {
    "input/v3": lambda: inputs.photos("v3", 1, TOY),
    "input/32": lambda: inputs.small(1, TOY),
    "knn": lambda: evaluation.neighbours(1),
    "throughput/toy": lambda: whole.throughput(small_recipe(), toy_photos, 1),
    "checkpoint": lambda: whole.checkpoints(1),
    "start/help": lambda: startup.help_text(1),
    "start/200-files": lambda: startup.first_step(1, 200),
}


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure.MIN_TURN", 0.0)
    monkeypatch.setattr(inputs, "BATCHES", 2)
    monkeypatch.setattr(evaluation, "BANK", 400)
    monkeypatch.setattr(evaluation, "QUERIES", 20)
    monkeypatch.setattr(whole, "FIRST", 2)
    monkeypatch.setattr(whole, "LAST", 4)
    monkeypatch.setattr(whole.step, "resnet18", small_recipe)


@pytest.mark.slow
@pytest.mark.parametrize("row", ONE_ROUND)
def test_row_runs_at_the_size_of_a_toy(row: str):
    results = list(ONE_ROUND[row]())
    assert results
    for one in results:
        assert one.name.startswith(row)
        assert one.ratio is not None
        assert one.ratio > 0
        assert one.floor_share is not None or one.name.endswith(("scikit-learn", "/wall", "/work"))


@pytest.mark.slow
def test_row_of_embedding_runs_at_the_size_of_a_toy(tmp_path: Path):
    assert evaluation.embedding("embed/toy", small_recipe(), toy_photos(tmp_path), 1).ratio is not None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_row_of_memory_gives_megabytes_of_both_sides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(startup, "MANY", 3)
    total, each = startup.input_memory(1, 8)
    assert total.memory_mb is not None
    assert total.memory_mb > 1  # two views of 8 images as float32 are 9.6 MB
    assert each.reference_memory_mb is not None
    assert each.reference_memory_mb > 10  # a Python with torch


def test_the_loader_hands_over_views_as_bytes_before_normalization(tmp_path: Path):
    """Crops alone: what is left is the device's work."""
    images, _ = inputs.folder_of(jpegs(tmp_path, TOY))
    data = inputs.data_of("v2")
    plain = data.model_copy(update={"views": tuple(view.model_copy(update=PLAIN) for view in data.views)})
    works = (inputs.ours(images, plain, as_bytes=as_bytes) for as_bytes in (True, False))
    slot, batch = (work() for work in works)
    crops = torch.from_numpy(slot.crops[0]).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(row).view(3, 1, 1) for row in (plain.mean, plain.std))
    assert crops.dtype == torch.uint8
    assert torch.allclose((crops / 255 - mean) / std, batch.views[0], atol=1e-5)


PLAIN = {"jitter": inputs.data_of("v2").views[0].jitter.model_copy(update={"p": 0.0}), "grey": 0.0, "blur": 0.0}


def test_reference_has_every_step_of_the_recipe_in_its_order():
    """v1 is grey first; v3's second view ends with a solarization (moco-v3, main_moco.py)."""
    first = inputs.Views([], inputs.data_of("v1")).views[0]
    second = inputs.Views([], inputs.data_of("v3")).views[1]
    end = ["RandomHorizontalFlip", "ToTensor", "Normalize"]
    assert steps(first) == ["RandomResizedCrop", "RandomGrayscale", "ColorJitter", *end]
    assert steps(second) == ["RandomResizedCrop", "ColorJitter", "RandomGrayscale", "Blur", "solarize", *end]


def steps(transform: T.Compose) -> list[str]:
    kinds = [getattr(one, "transforms", [one])[0] for one in transform.transforms]
    return [getattr(kind, "__name__", type(kind).__name__) for kind in kinds]


def test_photos_have_imagenets_size_and_bytes(tmp_path: Path):
    """ImageNet's training images: 0.5 bytes and, at 500 pixels of the longer side, 196,000 pixels on average."""
    files = sorted(jpegs(tmp_path, 10).glob("*/*.jpg"))
    pixels = [width * height for width, height in (Image.open(file).size for file in files)]
    assert sum(pixels) / len(files) == pytest.approx(196_000, rel=0.01)
    assert sum(file.stat().st_size for file in files) / sum(pixels) == pytest.approx(BYTES, rel=0.15)


def test_small_pictures_are_small(tmp_path: Path):
    (file,) = small_pngs(tmp_path, 1).iterdir()
    assert Image.open(file).size == (32, 32)


def test_processor_time_of_a_child_counts_while_it_works_and_after_it_has_ended(tmp_path: Path):
    with apart.PeerProcess(Path(sys.executable), apart.HERE, jpegs(tmp_path, 1)) as one:
        own, idle = time.process_time(), clocks.cpu()
        one.work()
        working, own = clocks.cpu(), time.process_time() - own
    ended = clocks.cpu()
    assert working - idle > own
    assert ended >= working - 0.02  # [s] an ended child is counted in ticks of the scheduler


def test_without_the_time_of_workers_there_is_no_row_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clocks, "sees_children", lambda: False)
    turns = [Spent(1.0, 2.0)]
    rows = inputs.both_clocks("x", turns, turns, lower_bound=turns, bound_text="")
    assert [row.name for row in rows] == ["x/wall"]
    (line,) = peers_input.apart("pillow-simd", 1, 1)
    assert "cannot be told" in line.row()


def test_a_library_that_pip_cannot_install_is_a_line_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    missing = apart.Peer("./no-such-folder", apart.pillow)
    monkeypatch.setattr(apart, "ENVIRONMENTS", tmp_path)
    monkeypatch.setitem(peers_input.APART, "missing", missing)
    (line,) = peers_input.apart("missing", 1, 1)
    assert line.ratio is None
    assert "no-such-folder" in line.row()


def test_peer_whose_process_fails_is_a_line_that_says_so(monkeypatch: pytest.MonkeyPatch):
    broken = apart.Peer("broken", apart.pillow)
    monkeypatch.setattr(apart.Peer, "python", lambda _: Path(sys.executable))
    monkeypatch.setitem(peers_input.APART, "broken", broken)  # its process does not know it
    (line,) = peers_input.apart("broken", 1, 1)
    assert line.ratio is None
    assert "process ended with 1" in line.row()


@pytest.mark.slow
def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers_input, "installed", lambda package: package == "torchvision")
    results = {one.name.rpartition("/")[2]: one for one in peers_input.peers(1, TOY)}
    assert set(results) == set(peers_input.PEERS)
    assert [name for name, one in results.items() if one.ratio is not None] == ["torchvision-v2"]


def test_work_in_a_process_of_its_own_may_have_workers():
    assert memory.alone(partial(max, 1, 2)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("task", "arch"), [("detect", "fpn"), ("instance", "fpn"), ("detect", "c4")])
def test_both_detectors_take_a_step_on_equal_shapes(monkeypatch: pytest.MonkeyPatch, task, arch):
    monkeypatch.setattr(detector, "PROPOSALS", 20)
    monkeypatch.setattr(detector, "ROIS", 8)
    (found,) = detector.row(task, arch, 1)
    assert found.name == f"detector/{task}-{arch}"
    assert found.ratio is not None
    ours, theirs = detector.ours(task, arch).args[0], detector.torchvisions(task, arch).args[0]
    sizes = [sum(x.numel() for x in model.parameters()) for model in (ours, theirs)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)  # torchvision has a box and a mask for the background too
