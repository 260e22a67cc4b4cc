"""Remove each guard of the matrix once: its fault must then have an effect."""

import os
import pickle
import resource
import time
import warnings
from pathlib import Path

import pytest
import torch

from moco import files
from moco.data.loader import processes
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import DataError, find_images
from moco.files import temporary_name
from moco.recipe import Recipe, RecipeError
from moco.train import checkpoint, lock_folder, saving
from moco.train.pretrain import pretrain
from moco.train.watchdog import Watchdog, watchdog
from moco.weights import read_checkpoint
from tests.faults import damaged_checkpoints, hostile_files, killed_workers
from tests.faults.disk_full import Limits
from tests.faults.killed_runs import RECIPE, make_images
from tests.faults.other_projects import plain, step_in
from tests.faults.power_loss import without_fsync
from tests.faults.step_marked_state import state as small
from tests.faults.step_marked_state import step_of
from tests.faults.symbolic_links import victim

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def test_written_in_place_a_file_is_torn_by_a_kill(tmp_path):
    def lost(seconds: float) -> bool:
        step = damaged_checkpoints.killed_in(plain, tmp_path, 1, seconds)
        return step > 0 and step_in(tmp_path / "checkpoint.pt") not in (step, step + 1)

    assert any(lost(0.02 + trial / 2000) for trial in range(60))


def test_without_the_hash_a_flipped_bit_loads(tmp_path, monkeypatch):
    damaged_checkpoints.ours(tmp_path, 1)
    damaged_checkpoints.ours(tmp_path, 2)
    path = tmp_path / "step_00000002.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 64  # among the numbers
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="SHA-256 differs"):
        assert checkpoint.newest_intact(tmp_path).name == "step_00000001.pt"
    monkeypatch.setattr(read_checkpoint, "find_damage", lambda *_: None)
    assert checkpoint.newest_intact(tmp_path) == path
    assert step_of(path) == -1  # it loads, and is not what was written


def test_without_its_own_checksums_a_flipped_bit_of_an_unlisted_one_loads(tmp_path, monkeypatch):
    damaged_checkpoints.ours(tmp_path, 1)
    manifest = (tmp_path / "MANIFEST.json").read_bytes()
    damaged_checkpoints.ours(tmp_path, 2)
    (tmp_path / "MANIFEST.json").write_bytes(manifest)
    path = tmp_path / "step_00000002.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 64
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="a checksum differs"):
        assert checkpoint.newest_intact(tmp_path).name == "step_00000001.pt"
    monkeypatch.setattr(read_checkpoint.ZipFile, "testzip", lambda _: None)
    assert checkpoint.newest_intact(tmp_path) == path


def test_without_sync_the_power_takes_the_only_checkpoint(tmp_path):
    assert without_fsync(tmp_path)


def test_without_the_guard_leftovers_stay(tmp_path, monkeypatch):
    leftover = temporary_name(tmp_path / "step_00000001.pt")
    leftover.write_bytes(b"half")
    monkeypatch.setattr(checkpoint, "remove_temporary_files", lambda _: None)
    damaged_checkpoints.ours(tmp_path, 1)
    assert leftover.exists()
    monkeypatch.undo()
    damaged_checkpoints.ours(tmp_path, 2)
    assert not leftover.exists()


def test_a_manifest_that_is_believed_blindly_ends_the_search(tmp_path, monkeypatch):
    damaged_checkpoints.ours(tmp_path, 1)
    damaged_checkpoints.ours(tmp_path, 2)
    (tmp_path / "MANIFEST.json").write_text('[{"name": "step_00000001.pt", "step": "x", "size": 1, "sha256": "y"}]')
    assert step_of(checkpoint.newest_intact(tmp_path)) == 2
    monkeypatch.setattr(read_checkpoint, "is_valid_entry", lambda _: True)
    with pytest.raises(TypeError):
        checkpoint.newest_intact(tmp_path)


def short_of_room(tmp_path: Path) -> None:
    """A run whose checkpoints of two steps cannot be written."""
    make_images(tmp_path / "images", "small")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        pretrain(
            tmp_path / "images", tmp_path / "run", recipe=RECIPE, workers=0, device="cpu", save_every=2,
            reporter=Limits(3, 7, 1000),
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_tolerated_and_without_retries_ends_the_run(tmp_path, monkeypatch):
    short_of_room(tmp_path / "with")
    monkeypatch.setattr(saving, "FAILURES", 1)
    monkeypatch.setattr(saving, "FAILING", 0.0)
    with pytest.raises(OSError, match=r"checkpoint of step [24] .*run the same command again"):
        short_of_room(tmp_path / "without")


def test_without_the_restriction_a_pickle_runs(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    file = tmp_path / "a.pth"
    file.write_bytes(hostile_files.containers(hostile_files.calls(canary)["reduce"])["zip"])
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.read_checkpoint(file)
    assert not canary.exists()
    honest = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **named: honest(*given, **named | {"weights_only": False}))
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.read_checkpoint(file)
    assert canary.exists()


@pytest.mark.parametrize("door", ["reduce", "os system", "builtins eval", "the opcode INST", "the opcode OBJ"])
def test_the_hostile_pickles_execute_code_if_pickle_reads_them(tmp_path, door):
    canary = tmp_path / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pickle.loads(hostile_files.calls(canary)[door])
    assert canary.exists()


def test_a_plain_open_writes_through_a_link(tmp_path):
    home = victim(tmp_path)
    (tmp_path / "log").symlink_to(home / "file")
    with pytest.raises(OSError, match="symbolic links"):
        files.append(tmp_path / "log", b"x")
    assert (home / "file").read_bytes() == b"precious"
    with (tmp_path / "log").open("ab") as log:
        log.write(b"x")
    assert (home / "file").read_bytes() == b"preciousx"


def test_without_the_bounds_a_recipe_ends_in_another_error():
    tree = RECIPE.model_dump()
    with pytest.raises(RecipeError, match=r"data\.size"):
        RECIPE.but(None, {"data.size": 10**12})
    unbounded = Recipe.model_construct(**tree | {"data": RECIPE.data.model_copy(update={"size": 10**12})})
    with pytest.raises(RuntimeError):
        torch.empty(8, 3, unbounded.data.size, unbounded.data.size)


def test_without_the_lock_two_work_in_one_folder(tmp_path, monkeypatch):
    with (
        lock_folder.lock_folder(tmp_path),
        pytest.raises(lock_folder.RunError, match="another process"),
        lock_folder.lock_folder(tmp_path),
    ):
        pass
    monkeypatch.setattr(lock_folder.fcntl, "flock", lambda *_: None)
    with lock_folder.lock_folder(tmp_path), lock_folder.lock_folder(tmp_path):
        pass


def test_the_watchdog_ends_a_run_that_hangs_and_without_it_nothing_does(monkeypatch):
    ended: list[str] = []
    monkeypatch.setattr(Watchdog, "_end", lambda dog, part, limit: (ended.append(part), dog.closed.set()))
    with watchdog(0.1 / 60) as dog:
        dog.section("step")
        assert dog.closed.wait(60)
    assert ended == ["step"]
    with watchdog(None) as dog:
        dog.section("step")
        time.sleep(0.4)
    assert ended == ["step"]


def test_the_watchdog_does_not_end_a_run_that_makes_progress(monkeypatch):
    ended: list[str] = []
    monkeypatch.setattr(Watchdog, "_end", lambda dog, part, limit: ended.append(part))
    with watchdog(2 / 60) as dog:
        for _ in range(30):
            dog.section("step")
            time.sleep(0.1)
    assert ended == []


def test_a_state_of_the_harness_shows_its_step(tmp_path):
    path = checkpoint.save(tmp_path, small(5), recipe="{}")
    assert step_of(path) == 5
    wrong = small(5)
    wrong.model.x[3] = 0
    assert step_of(checkpoint.save(tmp_path, wrong, recipe="{}")) == -1


def test_ordered_by_time_another_checkpoint_is_the_newest(tmp_path):
    damaged_checkpoints.ours(tmp_path, 1)
    damaged_checkpoints.ours(tmp_path, 2)
    os.utime(tmp_path / "step_00000001.pt", (2e9, 2e9))
    assert checkpoint.newest_intact(tmp_path).name == "step_00000002.pt"
    assert max(tmp_path.glob("step_*.pt"), key=lambda path: path.stat().st_mtime).name == "step_00000001.pt"


def test_without_the_error_for_damaged_checkpoints_a_run_starts_from_step_0(tmp_path, monkeypatch):
    make_images(tmp_path / "images", "small")
    settings = {"recipe": RECIPE, "workers": 0, "save_every": 2, "device": "cpu"}
    pretrain(tmp_path / "images", tmp_path / "out", **settings)
    (tmp_path / "out" / "finished.json").unlink()
    for path in (tmp_path / "out" / "checkpoints").glob("step_*.pt"):
        path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="using the one before it"), pytest.raises(checkpoint.CheckpointError):
        checkpoint.newest_intact(tmp_path / "out" / "checkpoints")
    monkeypatch.setattr(checkpoint, "newest_intact", lambda folder, **_: None)
    said = pretrain(tmp_path / "images", tmp_path / "out", **settings)
    steps = [record["step"] for record in said.metrics() if "loss" in record]
    assert steps == list(range(1, 19))  # made once more, all of them


@pytest.mark.parametrize(("most_failures", "most_crashes"), [(1, 2), (3, 1000)])  # 2 crashes come before 3 failures
def test_workers_that_are_not_replaced_or_an_image_that_is_not_blamed_end_the_run(
    tmp_path, monkeypatch, most_failures: int, most_crashes: int
):
    make_images(tmp_path / "images", "mixed")
    images = find_images(tmp_path / "images")
    deadly = killed_workers.Deadly(images, 5)
    monkeypatch.setattr(processes, "MAX_FAILURES", most_failures)
    monkeypatch.setattr(processes, "MAX_CRASHES", most_crashes)
    with pytest.raises(DataError, match="died"):
        killed_workers.bits(deadly, killed_workers.WORKERS, Quarantine(None, None, len(images)))
