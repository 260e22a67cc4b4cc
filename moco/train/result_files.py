"""The files that a run writes at its end, with their SHA-256: what no run has written is not replaced or believed.

A run lists the SHA-256 of each file in saved.json before it writes them, and in finished.json when all are written.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco.files import read_json, write_atomically, write_json
from moco.train.keep_checkpoints import free_name
from moco.train.run_folder import RunError, RunFolder, has_numbers_of_the_end
from moco.weights.read_checkpoint import entries

Sums = dict[str, list[str]]  # file -> the SHA-256 of each content that the run has written


def finish_run(run: RunFolder, files: Mapping[str, bytes], facts: dict[str, Any]) -> None:
    """Write the results of a run, and finished.json last.

    Args:
        files: their contents, by names relative to the run folder.
        facts: what finished.json says of the run.
    """
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    run.record_results(sums)
    for name, content in files.items():
        (run.path / name).parent.mkdir(exist_ok=True)
        write_atomically(run.path / name, lambda file, content=content: file.write(content))
    write_json(run.path / "finished.json", facts | {"sha256": sums})


def check_results(run: RunFolder) -> None:
    """Raise RunError if a result of a finished run is damaged, or is another run's.

    The model card, README.md, may be edited. Runs of older versions have listed no SHA-256; config.json has some.
    """
    known = _listed(run)
    for name in run.results:
        if not (_is_listed(run, name, known) if known else _fits_config(run)):
            raise RunError(f"{run.path / name} is damaged, or not the file that this run has written. {_advice(run)}")


def check_no_foreign_results(run: RunFolder) -> None:
    """Raise RunError if a file is where an unfinished run will write a result, and no run has written that file."""
    known = _listed(run)
    for name in (*run.results, f"{run.product}/README.md"):
        there = os.path.lexists(run.path / name)
        if there and not _is_listed(run, name, known):
            raise RunError(
                f"{run.path / name} is not from this run, or is damaged, and the run would replace it at its end: move "
                "it away and run the same command again, or name another --out"
            )


def set_aside_foreign_notes(run: RunFolder) -> list[str]:
    """Rename finished.json, provenance.json and saved.json of an unfinished run if a run has not written them.

    Returns:
        The new names.
    """
    ours = {"finished.json": has_numbers_of_the_end, "provenance.json": is_provenance, "saved.json": is_saved_note}
    moved: list[str] = []
    for name, looks_ours in ours.items():
        file = run.path / name
        if os.path.lexists(file) and (file.is_symlink() or not looks_ours(read_json(file))):
            moved.append(file.rename(free_name(file)).name)
    return moved


def is_provenance(starts: Any) -> bool:
    return isinstance(starts, list) and all(isinstance(one, dict) and "versions" in one for one in starts)


def is_saved_note(noted: Any) -> bool:
    return isinstance(noted, dict) and "first_step" in noted and noted.keys() <= {"first_step", "sha256"}


def _listed(run: RunFolder) -> Sums:
    """The SHA-256 in finished.json and saved.json."""
    sums: Sums = {}
    for note in ("finished.json", "saved.json"):
        noted = read_json(run.path / note)
        found = noted.get("sha256") if isinstance(noted, dict) else None
        for name, value in found.items() if isinstance(found, dict) else ():
            sums.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return sums


def _is_listed(run: RunFolder, name: str, known: Sums) -> bool:
    file = run.path / name
    return name in known and file.is_file() and _sha256(file) in known[name]


def _fits_config(run: RunFolder) -> bool:
    """Whether config.json has the SHA-256 of the weights, and its own, or none: those of older versions."""
    folder = run.path / run.product
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("sha256"):
        return True
    rest = {key: value for key, value in config.items() if key != "config_sha256"}
    own = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()  # as weights/loaded_weights.py has it
    weights = folder / "model.safetensors"
    return config.get("config_sha256") in (None, "", own) and weights.is_file() and _sha256(weights) == config["sha256"]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _advice(run: RunFolder) -> str:
    if entries(run.checkpoints):
        return (
            "Move it away and run the same command again, which writes it again from the newest checkpoint; or restore "
            "it from a backup"
        )
    return (
        f"Restore it from a backup. There is no checkpoint in {run.checkpoints} to write it again from, so otherwise "
        "the run must start again: another --out, or --overwrite"
    )
