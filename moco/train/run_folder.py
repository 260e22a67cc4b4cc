"""The run folder: its files, its lock, and the record of each start.

recipe.json  provenance.json  init.json  manifest.jsonl.gz  metrics.jsonl  train.log  bad_images.csv  saved.json
finished.json  checkpoints/  encoder/ or model/  curves.png  neighbours.png  scores.json  details.json  diagnosis.json
compare.json  report.html  report.json  atlas.html  atlas.parquet  predictions.png  precision_recall.png
confusions.png
"""

import json
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moco
from moco.files import append, read_json, write_json
from moco.recipe import Recipe
from moco.recipe_base import RecipeBase
from moco.text import escape
from moco.train.lock_folder import RunError, check_same_folder
from moco.train.read_log import read_records
from moco.weights.own_files import is_run_id, new_run_id
from moco.weights.read_checkpoint import entries

if TYPE_CHECKING:
    import torch

    from moco.data.sources.images import Images


FINISHED = ("images", "bad_images", "steps", "epochs", "seconds")  # numbers that finished.json always has


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        kind: type of its recipe.
        product: name of the folder for the trained network: encoder, or model after fine-tuning.
    """

    path: Path
    kind: type[RecipeBase] = Recipe
    product: str = "encoder"

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def encoder(self) -> Path:
        return self.path / "encoder"

    @property
    def results(self) -> tuple[str, ...]:
        """The files of a finished run that are read later, relative to its folder."""
        names = (f"{self.product}/model.safetensors", f"{self.product}/config.json")
        return names if self.product == "encoder" else (*names, "scores.json")

    @property
    def details(self) -> tuple[str, ...]:
        """Other files that fine-tuning writes at its end, for people. It does not read them."""
        names = ("details.json", "predictions.png", "precision_recall.png", "confusions.png")
        return () if self.product == "encoder" else names

    @property
    def finished(self) -> bool:
        """Whether finished.json has the numbers of a finished run, and the results are there."""
        noted = read_json(self.path / "finished.json")
        return has_numbers_of_the_end(noted) and all((self.path / name).is_file() for name in self.results)

    def recipe(self) -> Recipe:
        """The recipe of a pre-training run. Raises RecipeError."""
        return Recipe.read(self.recipe_file)

    def read_recipe(self) -> RecipeBase:
        """The recipe of a run of this kind. Raises RecipeError."""
        return self.kind.read(self.recipe_file)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl. Invalid lines are left out: a kill may cut off a line."""
        return read_records(self.metrics_file)

    def has_never_saved(self) -> bool:
        """Whether saved.json says that the run has no checkpoint yet."""
        noted = self._saved_note()
        return noted.get("first_step", 0) is None and "sha256" not in noted

    def first_saved_step(self) -> int | None:
        """The step of the first checkpoint, from saved.json; None: there was none, or it is not known."""
        step = self._saved_note().get("first_step")
        return step if isinstance(step, int) else None

    def record_start(self) -> None:
        """Record the new id of the run, and that there is no checkpoint yet."""
        write_json(self.path / "saved.json", {"first_step": None, "run_id": new_run_id()})

    def record_first_checkpoint(self, step: int, *, run_id: str | None = None) -> None:
        """Record that there is a checkpoint. If all are missing later, the run must not silently start again.

        Args:
            run_id: the id in the checkpoint, which is recorded too if the record of the run's id is lost.
        """
        known = {name: value for name, value in self._saved_note().items() if name in ("run_id", "sha256")}
        lost = {"run_id": run_id} if is_run_id(run_id) else {}
        write_json(self.path / "saved.json", {"first_step": step} | lost | known)

    def record_results(self, sums: dict[str, str]) -> None:
        """Record the SHA-256 of the results that the run is about to write, beside those of an earlier attempt."""
        noted = self._saved_note()
        known = noted.get("sha256")
        known = known if isinstance(known, dict) else {}
        all_sums = {name: [*dict.fromkeys([*known.get(name, []), digest])] for name, digest in sums.items()}
        write_json(self.path / "saved.json", {"first_step": None} | noted | {"sha256": known | all_sums})

    def record_result(self, name: str, digest: str) -> None:
        """Record one more result, if there is a list of them: runs of older versions have none."""
        if isinstance(self._saved_note().get("sha256"), dict):
            self.record_results({name: digest})

    def _saved_note(self) -> dict[str, Any]:
        noted = read_json(self.path / "saved.json")
        return noted if isinstance(noted, dict) else {}

    def sync(self) -> None:
        """Flush the logs to the disk, so that they survive a power failure."""
        for file in (self.metrics_file, self.path / "bad_images.csv"):
            if file.exists():
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def log(self, *records: dict[str, Any]) -> None:
        """Append records to metrics.jsonl. OSError: none is appended. RunError: see `check_same_folder`."""
        check_same_folder(self.path)
        append(self.metrics_file, "".join(json.dumps(record) + "\n" for record in records).encode())


def check_is_run(path: Path) -> None:
    """Raise RunError if a folder is not a run."""
    if not RunFolder(path).recipe_file.is_file():
        raise RunError(f"{path} is not a run: it has no recipe.json")


def has_numbers_of_the_end(noted: Any) -> bool:
    """Whether this is the content of a finished.json."""
    return isinstance(noted, dict) and all(_is_number(noted.get(name)) for name in FINISHED)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_init(run: RunFolder, init: str | Path | None) -> str | None:
    """Check --init when a run resumes: it must name the same weights as at the start. Raises RunError.

    Returns:
        The weights that the run must start from again, if it was killed before its first checkpoint; otherwise None.
    """
    file = run.path / "init.json"
    try:
        was = json.loads(file.read_bytes())["weights"] if file.exists() else None
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is damaged ({error!r}), so the initial weights of the run are not known: start again with "
            "--overwrite"
        ) from None
    if init is not None and was != str(init):
        raise RunError(
            f"the run in {run.path} started from {was or 'random weights'}, not from {init}: leave --init out to "
            "resume it, or name another --out"
        )
    return None if entries(run.checkpoints) else was


def check_init_content(run: RunFolder, init: str | Path, sha256: str) -> None:
    """Raise RunError if the run started from other content than `init` has now. Older versions recorded no SHA-256."""
    noted = read_json(run.path / "init.json")
    was = noted.get("sha256", "") if isinstance(noted, dict) else ""
    if was in ("", sha256):
        return
    goes_on = run.product == "encoder" and entries(run.checkpoints)  # pre-training reads them only before that
    needed = "leave --init out to continue" if goes_on else "put the former weights back"
    raise RunError(
        f"the run in {run.path} started from other weights than {init} has now: their SHA-256 was "
        f"{escape(str(was)[:12])}..., and is {sha256[:12]}.... Either {needed}, or name another --out to "
        "start from the new ones"
    )


def record_init(run: RunFolder, init: str | Path | None, messages: list[str], *, sha256: str = "") -> None:
    """Record the weights that the run starts from, and the SHA-256 of their content (`moco.weights.content_hash`)."""
    if init is not None:
        write_json(run.path / "init.json", {"weights": str(init), "sha256": sha256, "read": messages})


def add_start(run: RunFolder, step: int, facts: dict[str, Any]) -> None:
    """Append this start of the run to provenance.json."""
    file = run.path / "provenance.json"
    starts: Any = []
    with suppress(ValueError, RecursionError, OSError):  # damaged or missing: start a new list
        starts = json.loads(file.read_bytes())
    write_json(file, [*(starts if isinstance(starts, list) else []), {"step": step} | facts])


def provenance(*, device: "torch.device", workers: int, images: "Images", data: str) -> dict[str, Any]:
    """The record of a start: versions, machine, command, and the fingerprint of the data."""
    import numpy as np
    import PIL
    import torch

    from moco.data.remote.urls import redact
    from moco.data.sources.skipped import count_skipped_files
    from moco.distributed import world_size

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [redact(one) for one in sys.argv],
        "versions": {
            "momentum-contrast": moco.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "torchvision": version("torchvision"), "numpy": np.__version__, "pillow": PIL.__version__,
        },
        "machine": {
            "system": platform.platform(), "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": str(device),
            "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "ranks": world_size(), "workers": workers, "images": len(images),
        "skipped": count_skipped_files(images), "data_fingerprint": data,
    }  # fmt: skip
