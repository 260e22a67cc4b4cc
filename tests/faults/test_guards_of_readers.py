"""More guards taken away once: those of threads, of ranks, and of what reads small files."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from moco.data.loader import loader
from moco.data.loader.threads import in_order
from moco.data.sources import manifest, torch_dataset
from moco.train import pretrain, resume
from moco.weights import copy_weights, tensors
from tests.faults import hostile_checkpoints, hostile_settings, hung_runs, torch_dataset_threads, torchrun_ranks

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def test_if_errors_of_threads_are_ignored_a_run_continues_with_wrong_views(tmp_path, monkeypatch):
    def passing_over(make: Callable[[Any, Event], Any], items: Iterable[Any], **options: Any) -> Iterator[Any]:
        def made(item: Any, gone: Event) -> Any:
            with contextlib.suppress(Exception):
                return make(item, gone)
            return item

        return in_order(made, items, **options)

    monkeypatch.setattr(loader, "in_order", passing_over)
    assert hung_runs.dying_threads(2, tmp_path).lost == 2


def test_a_data_set_that_several_threads_read_at_once_mixes_up_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_dataset, "_lock_for", lambda dataset: nullcontext())
    assert torch_dataset_threads.one_file(2, tmp_path).lost > 0


def test_a_data_set_whose_file_processes_share_mixes_up_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "for_process", lambda images: images)
    assert torch_dataset_threads.one_file(4, tmp_path).lost > 0


def test_ranks_that_read_different_checkpoints_resume_at_different_steps(tmp_path, monkeypatch):
    restore = resume.restore

    def of_its_own(*arguments: Any) -> None:
        with (
            mock.patch.object(resume, "on_main", return_value=True),
            mock.patch.object(resume, "share", lambda content: content),
        ):
            restore(*arguments)

    monkeypatch.setattr(pretrain, "restore", of_its_own)
    assert torchrun_ranks.ranks_disagree(2, tmp_path).lost > 0


def test_without_typed_errors_a_damaged_manifest_ends_in_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(
        hostile_settings, "REFUSED", {name: hostile_settings.REFUSED[name] for name in ["manifest of a run"]}
    )
    monkeypatch.setattr(hostile_settings, "TOLERATED", {})
    (tmp_path / "with").mkdir()
    assert hostile_settings.files_of_a_run(1, tmp_path / "with").lost == 0
    monkeypatch.setattr(manifest, "_damage_reported", lambda _: contextlib.nullcontext())
    (tmp_path / "without").mkdir()
    assert hostile_settings.files_of_a_run(1, tmp_path / "without").lost == 1


def test_a_reader_that_believes_the_header_takes_hostile_safetensors(tmp_path, monkeypatch):
    def believing(file: str | Path) -> dict[str, Tensor]:
        content = Path(file).read_bytes()
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        return {
            name: torch.frombuffer(bytearray(data[slice(*one["data_offsets"])]), dtype=torch.uint8)
            for name, one in header.items()
            if name != "__metadata__"
        }

    monkeypatch.setattr(tensors, "load_file", believing)
    assert hostile_checkpoints.safetensors(15, tmp_path).lost > 0


def test_without_checking_tensors_and_values_hostile_contents_are_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "plain_content", lambda content, where, file_size: content)
    monkeypatch.setattr(copy_weights, "_check_values", lambda pairs, where: None)
    made = hostile_checkpoints.hostile_contents()
    del made["2^64 ways to one list"]  # each reader would take its whole limit of time
    monkeypatch.setattr(hostile_checkpoints, "hostile_contents", lambda: made)
    assert hostile_checkpoints.contents(len(made), tmp_path).lost > 4
