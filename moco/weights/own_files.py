"""Recognise the files in a run folder that this run has written: results by SHA-256, checkpoints by the run's id.

saved.json has the id of the run. A run lists the SHA-256 of each result there before it writes the result, and in
finished.json after all.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Any, TypeGuard

from moco.files import read_json
from moco.recipe import Recipe, RecipeError
from moco.weights.errors import WeightsError
from moco.weights.read_checkpoint import CheckpointError, find_other_run, read_checkpoint, step_in

Sums = dict[str, list[str]]  # file -> the SHA-256 of each content that the run has written


def read_listed_sums(run: Path) -> Sums | None:
    """The SHA-256 of the results that the run has listed; None: a run of an older version, which has listed none.

    finished.json is used only if saved.json is missing or damaged, because it may have been copied from another run.
    """
    saved, finished = read_json(run / "saved.json"), read_json(run / "finished.json")
    if not isinstance(saved, dict) or not are_sums(saved.get("sha256", {})):
        return _sums_in(finished)
    if (sums := _sums_in(saved)) is not None:
        return sums
    return None if isinstance(finished, dict) and _sums_in(finished) is None else {}


def _sums_in(noted: Any) -> Sums | None:
    sums = noted.get("sha256") if isinstance(noted, dict) else None
    if not isinstance(sums, dict):
        return None
    lists = {name: value if isinstance(value, list) else [value] for name, value in sums.items()}
    return {name: [digest for digest in found if isinstance(digest, str)] for name, found in lists.items()}


def read_run_id(run: Path) -> str | None:
    """The id of the run, which its checkpoints have too; None: a run of an older version, or saved.json is lost."""
    saved = read_json(run / "saved.json")
    run_id = saved.get("run_id") if isinstance(saved, dict) else None
    return run_id if is_run_id(run_id) else None


def new_run_id() -> str:
    """A random id that contains its own checksum, so that a damaged one is known. Draws from no generator of a run."""
    number = secrets.token_hex(12)
    return number + hashlib.sha256(number.encode()).hexdigest()[:8]


def is_run_id(value: Any) -> TypeGuard[str]:
    """Whether this is an undamaged result of `new_run_id`."""
    return isinstance(value, str) and value[24:] == hashlib.sha256(value[:24].encode()).hexdigest()[:8]


def are_sums(value: Any) -> bool:
    """Whether these are the SHA-256 of results as a run lists them."""
    lists = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(one, list) and all(isinstance(digest, str) for digest in one) for one in lists)


def is_listed(run: Path, name: str, known: Sums) -> bool:
    """Whether the run has written the present content of its file `name`."""
    file = run / name
    return name in known and file.is_file() and sha256_of(file) in known[name]


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_network_is_of_run(run: Path, product: str) -> None:
    """Raise WeightsError if the network in the run folder is damaged, or was not trained by this run.

    Args:
        product: the folder of the network, encoder or model.
    """
    known = read_listed_sums(run) if (run / "recipe.json").is_file() else None
    if known is None:
        return
    for name in (f"{product}/model.safetensors", f"{product}/config.json"):
        if not is_listed(run, name, known):
            raise WeightsError(
                f"{run / name} is damaged, was changed, or is not from this run (its SHA-256 is not in saved.json): "
                f"restore it from a backup, or move {run / product} away to use the checkpoints. To use it as it is, "
                f"name {run / product} instead of {run}"
            )


def last_step(run: Path) -> int | None:
    """The last step of a pre-training run, from its recipe and the number of its images; None: not known."""
    starts, finished = read_json(run / "provenance.json"), read_json(run / "finished.json")
    noted = [*(starts if isinstance(starts, list) else []), finished]
    counts = [one.get("images") for one in noted if isinstance(one, dict)]
    counts = [count for count in counts if type(count) is int]
    try:
        optim = Recipe.read(run / "recipe.json").optim
    except (RecipeError, OSError):
        return None
    return max((optim.total_steps(count) for count in counts), default=None)


def find_step_beyond_end(run: Path, checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be of this run: its step is after the run's last one. None if it can be."""
    step, last = step_in(checkpoint.name), last_step(run)
    return None if step is None or last is None or step <= last else f"of step {step}, and this run ends at step {last}"


def find_foreign(run: Path, checkpoint: Path) -> str | None:
    """Why a checkpoint in the folder of a pre-training run cannot be of this run. None if it can be."""
    if reason := find_step_beyond_end(run, checkpoint):
        return reason
    try:
        return find_other_run(read_checkpoint(checkpoint, mmap=True), read_run_id(run))
    except CheckpointError as error:
        return f"unreadable ({error})"
