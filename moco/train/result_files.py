"""Write and check the results of a run. Files that the run has not written are never replaced or used."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moco.files import name_in_errors, read_json, temporary_name, write_atomically, write_json
from moco.text import first_few
from moco.train.keep_checkpoints import free_name
from moco.train.lock_folder import RunError, check_same_folder
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder, has_numbers_of_the_end
from moco.weights.own_files import are_sums, is_listed, is_run_id, read_listed_sums, sha256_of
from moco.weights.read_checkpoint import MANIFEST, entries, is_valid_entry


def finish_run(run: RunFolder, files: Mapping[str, bytes], facts: dict[str, Any]) -> list[str]:
    """Write the results of a run, and finished.json last. Files of the user with the same names are renamed.

    Args:
        files: contents, by name relative to the run folder.
        facts: further entries of finished.json.

    Returns:
        The new names of renamed files.

    Raises:
        RunError: see `check_same_folder`.
    """
    check_same_folder(run.path)
    known = read_listed_sums(run.path) or {}
    foreign = [run.path / name for name in files if os.path.lexists(run.path / name)]
    foreign = [file for file in foreign if not is_listed(run.path, str(file.relative_to(run.path)), known)]
    moved = [file.rename(free_name(file)).name for file in foreign]
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    run.record_results(sums)
    for name, content in files.items():
        (run.path / name).parent.mkdir(exist_ok=True)
        write_atomically(run.path / name, lambda file, content=content: file.write(content))
    write_json(run.path / "finished.json", facts | {"sha256": sums})
    return moved


def write_result(run: RunFolder, name: str, write: Callable[[Path], object]) -> bool:
    """Write one more file of a finished run by `write(path)`, unless there is one that the run has not written.

    Returns:
        Whether it was written.
    """
    file = run.path / name
    if os.path.lexists(file) and (file.is_symlink() or not is_listed(run.path, name, read_listed_sums(run.path) or {})):
        return False
    temporary = temporary_name(file)
    try:
        with name_in_errors(file, temporary):
            write(temporary)
            run.record_result(name, sha256_of(temporary))
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def check_results(run: RunFolder) -> None:
    """Raise RunError if a result of a finished run is damaged, or was not written by this run.

    The model card, README.md, may be edited. For runs of older versions, the SHA-256 in config.json are checked.
    """
    known = read_listed_sums(run.path)
    for name in run.results:
        if not (fits_config(run) if known is None else is_listed(run.path, name, known)):
            raise RunError(f"{run.path / name} is damaged, or was not written by this run. {_advice(run)}")


def check_no_foreign_results(run: RunFolder) -> None:
    """Raise RunError if an unfinished run would replace a file that it has not written by one of its results."""
    known = read_listed_sums(run.path) or {}
    for name in (*run.results, *run.details, f"{run.product}/README.md"):
        if os.path.lexists(run.path / name) and not is_listed(run.path, name, known):
            raise RunError(
                f"{run.path / name} is not from this run, or is damaged, and the run would replace it at its end: move "
                "it away and run the same command again, or name another --out"
            )


def rename_foreign_notes(run: RunFolder) -> list[str]:
    """Rename finished.json, provenance.json, saved.json and MANIFEST.json if no run has written their content.

    Damaged ones are renamed too. The run writes them again.

    Returns:
        The new names.
    """
    ours = {"finished.json": has_numbers_of_the_end, "provenance.json": is_provenance, "saved.json": is_saved_note}
    there = {run.path / name: looks_ours for name, looks_ours in ours.items() if os.path.lexists(run.path / name)}
    foreign = [file for file, looks_ours in there.items() if file.is_symlink() or not looks_ours(read_json(file))]
    manifest = run.checkpoints / MANIFEST
    if os.path.lexists(manifest) and not is_manifest(read_json(manifest)):  # an unreadable one was refused before
        foreign.append(manifest)
    return [file.rename(free_name(file)).name for file in foreign]


def report_renamed(run: RunFolder, moved: list[str], reporter: Reporter) -> None:
    for message in describe_renamed(run, moved):
        reporter.say(message)


def describe_renamed(run: RunFolder, moved: list[str]) -> list[str]:
    """A message about renamed files; []: there are none."""
    return [f"caution: damaged or foreign files in {run.path} were renamed to {first_few(moved)}"] if moved else []


def is_provenance(starts: Any) -> bool:
    return isinstance(starts, list) and all(isinstance(one, dict) and "versions" in one for one in starts)


def is_manifest(listed: Any) -> bool:
    return isinstance(listed, list) and (not listed or any(map(is_valid_entry, listed)))


def is_saved_note(noted: Any) -> bool:
    if not isinstance(noted, dict) or "first_step" not in noted:
        return False
    right = {"first_step": lambda step: step is None or isinstance(step, int), "run_id": is_run_id, "sha256": are_sums}
    return all(name in right and right[name](value) for name, value in noted.items())


def fits_config(run: RunFolder) -> bool:
    """Whether the SHA-256 of weights and settings in config.json are right. Those of older versions may be missing."""
    folder = run.path / run.product
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("sha256"):
        return True
    rest = {key: value for key, value in config.items() if key != "config_sha256"}
    own = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()  # as weights/loaded_weights.py has it
    weights = folder / "model.safetensors"
    return (
        config.get("config_sha256") in (None, "", own) and weights.is_file() and sha256_of(weights) == config["sha256"]
    )


def _advice(run: RunFolder) -> str:
    if entries(run.checkpoints):
        return (
            "Move it away and run the same command again, which writes it again from the newest checkpoint; or restore "
            "it from a backup"
        )
    return (
        f"Restore it from a backup. {run.checkpoints} has no checkpoint to write it again from, so otherwise start the "
        "run again, with another --out or with --overwrite"
    )
