"""Distinguish the files that a run has written from a user's files of the same names, before `--overwrite` removes any.

Results are known by the SHA-256 that the run has listed, checkpoints by the manifest or the run's id, the others by
their content. A damaged file counts as not written by the run.
"""

import os
from collections.abc import Callable
from pathlib import Path

from moco.files import read_json
from moco.train.existing_folder import BEFORE_THE_FIRST_STEP
from moco.train.keep_checkpoints import is_own_file
from moco.train.nan_folder import is_nan_facts
from moco.train.result_files import fits_config, is_manifest
from moco.train.run_folder import RunFolder, has_numbers_of_the_end
from moco.weights.own_files import is_listed, read_listed_sums, read_run_id
from moco.weights.read_checkpoint import MANIFEST, CheckpointError, find_other_run, read_checkpoint, step_in

PAGES = {"report.html": b"momentum-contrast report", "atlas.html": b"momentum-contrast atlas"}  # name -> its generator


def is_written_by_run(run: RunFolder, file: Path) -> bool:
    """Whether this run has written `file`, which has the name of a file of a run. A link is never the run's."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        return _check_of(run, file)(file)
    except (OSError, EOFError, ValueError, RecursionError, TypeError, KeyError, CheckpointError):
        return False


def _check_of(run: RunFolder, file: Path) -> Callable[[Path], bool]:
    """The function that tells whether a run has written the content of `file`."""
    name = str(file.relative_to(run.path))
    if file.parent == run.checkpoints:
        return (lambda one: is_manifest(read_json(one))) if file.name == MANIFEST else lambda one: _is_saved(run, one)
    if file.parent.parent == run.path / "nan":
        return is_nan_facts if file.name == "facts.json" else lambda one: _is_of_run(run, one)
    if name == "finished.json":
        return lambda one: has_numbers_of_the_end(read_json(one))
    if name in PAGES:
        return lambda one: _has_generator(one, PAGES[name])
    if name in ("report.json", "diagnosis.json"):
        return _is_report_or_diagnosis
    if name == "atlas.parquet":
        return _is_table
    return BEFORE_THE_FIRST_STEP.get(name) or (lambda one: _is_result(run, one, name))


def _is_saved(run: RunFolder, file: Path) -> bool:
    """Whether the manifest lists the checkpoint with this content, or it has the run's id."""
    if is_own_file(file):
        return True
    payload, run_id = read_checkpoint(file, mmap=True), read_run_id(run.path)
    has_own_step = payload["state"]["clock"]["step"] == step_in(file.name)
    return has_own_step and run_id is not None and find_other_run(payload, run_id) is None


def _is_of_run(run: RunFolder, file: Path) -> bool:
    """Whether a copy of a checkpoint has the run's id. Those of older versions have none."""
    return find_other_run(read_checkpoint(file, mmap=True), read_run_id(run.path)) is None


def _is_result(run: RunFolder, file: Path, name: str) -> bool:
    known = read_listed_sums(run.path)
    if known is not None:
        return is_listed(run.path, name, known)
    config = f"{run.product}/config.json"  # an older version has listed the weights there, and no other result
    is_of_config = name in (config, f"{run.product}/model.safetensors")
    has_sum = bool((read_json(run.path / config) or {}).get("sha256"))
    return is_of_config and has_sum and fits_config(run)


def _has_generator(page: Path, generator: bytes) -> bool:
    with page.open("rb") as content:
        return b'name="generator" content="' + generator + b'"' in content.read(4096)


def _is_report_or_diagnosis(file: Path) -> bool:
    found = read_json(file)
    made_by = str(found.get("made_by", "")) if isinstance(found, dict) else ""
    return made_by.startswith("momentum-contrast") or (
        isinstance(found, dict) and {"run", "measurement"} <= found.keys()
    )


def _is_table(file: Path) -> bool:
    from moco.atlas.table import is_table_of_ours  # here: few runs have a table, and pyarrow takes a moment

    return os.path.getsize(file) > 0 and is_table_of_ours(file)
