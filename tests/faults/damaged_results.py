"""D3, S6: checkpoints that lack a part, damaged results, and files of the user with the names of a run's."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import torch

from moco.train.run_folder import RunError
from moco.weights.encoder_folder import WeightsError, load_encoder
from moco.weights.read_checkpoint import MANIFEST
from tests.damage import flip_bit, put
from tests.faults.lost_run_files import NAMES, SHORT, ending, train, tries
from tests.faults.matrix import Fault, Tally

USERS = (
    "finished.json", "encoder/model.safetensors", "encoder/config.json", "encoder/README.md", "provenance.json",
    "saved.json", ".tmp-1-ab", ".tmp-old-curves.png", "checkpoints/.tmp-old-MANIFEST.json", "curves.png",
)  # fmt: skip
OVERWRITTEN = (
    "curves.png", "report.html", "diagnosis.json", "scores.json", "train.log", "metrics.jsonl", "saved.json",
    "finished.json", "encoder/model.safetensors", "encoder/README.md", "model/config.json", "recipe.json",
    "checkpoints/step_00000006.pt", "checkpoints/step_00000099.pt", "checkpoints/MANIFEST.json",
)  # fmt: skip
PARTS = (
    ("recipe",), ("state",), ("state", "model"), ("state", "clock"), ("state", "clock", "step"), ("state", "optimizer"),
    ("state", "optimizer", "param_groups"), ("state", "optimizer", "state", 0), ("state", "scaler"),
    ("state", "model", "dictionary.keys"),
)  # fmt: skip


def incomplete_checkpoints(count: int, folder: Path) -> Tally:
    """The newest checkpoint has lost a part, or says another step, and the manifest has its SHA-256."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        file = out / "checkpoints" / NAMES[2]
        payload = torch.load(file, weights_only=True)
        put(payload, rng.choice(PARTS), rng.choice([None, -4, 10**9, {}, "x"]))
        torch.save(payload, file)
        content = file.read_bytes()
        listed = json.loads((file.parent / MANIFEST).read_text())
        for entry in listed:
            if entry["name"] == file.name:
                entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (file.parent / MANIFEST).write_text(json.dumps(listed))
        train(images, out)
        return ending(out) == whole and content in [one.read_bytes() for one in file.parent.iterdir()]

    return tries(count, folder, "stopped", work)


def damaged_results(count: int, folder: Path) -> Tally:
    """A bit of the encoder of a finished run is flipped, or its file cut: refused by name, and written again."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        file = out / "encoder" / rng.choice(["model.safetensors", "config.json"])
        content = file.read_bytes()
        at = rng.randrange(len(content))
        flipped = flip_bit(content, at, rng)
        file.write_bytes(rng.choice([content[:at], flipped]))
        try:
            train(images, out)
        except RunError as error:
            refused = str(file) in str(error)
            file.rename(out / "away")
            train(images, out)
            return refused and file.read_bytes() == content and ending(out) == whole
        return False

    return tries(count, folder, "finished", work)


def foreign_encoders(count: int, folder: Path) -> Tally:
    """The encoder of another run is in the place of a run's own, with or without its finished.json: never loaded."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        other, own = folder / "other", out.parent / f"{out.name}-own"
        if not other.exists():
            train(images, other, SHORT.but("short", {"seed": 7}))
        shutil.move(out / "encoder", own)
        shutil.copytree(other / "encoder", out / "encoder")
        if rng.random() < 0.5:
            shutil.copy(other / "finished.json", out / "finished.json")
        refused = 0
        for read in (lambda: load_encoder(out), lambda: train(images, out)):
            try:
                read()
            except (WeightsError, RunError) as error:
                refused += "encoder/model.safetensors" in str(error)
        shutil.move(out / "encoder", own / "theirs")
        train(images, out)
        load_encoder(out)
        return refused == 2 and ending(out) == whole

    return tries(count, folder, "finished", work)


def files_of_the_user(count: int, folder: Path) -> Tally:
    """A file of the user has a name that a run or its removal uses: it is refused or renamed, and never replaced."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        file, mine = out / rng.choice(USERS), f"mine {rng.random()}".encode()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(mine)

        def kept() -> bool:
            return mine in [one.read_bytes() for one in out.rglob("*") if one.is_file()]

        try:
            train(images, out)
        except RunError as error:
            refused = str(file) in str(error) and kept()
            file.rename(folder / "away")
            train(images, out)
            return refused and ending(out) == whole
        return kept() and ending(out) == whole

    return tries(count, folder, "stopped", work)


def overwritten_runs(count: int, folder: Path) -> Tally:
    """A file of the user has the name of a file of a finished run, and `--overwrite` starts the run again."""

    def work(images: Path, out: Path, rng: random.Random, whole: list[object]) -> bool:
        file, mine = out / rng.choice(OVERWRITTEN), f"mine {rng.random()}".encode()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(mine)
        train(images, out, overwrite=True)
        renamed = file.with_name(f"{file.name}.other").read_bytes()
        return renamed == mine and ending(out) == whole

    return tries(count, folder, "finished", work)


FAULTS = [
    Fault("D3", "checkpoints that lack a part, with a right SHA-256",
          "the one before it is used, with the reason; the file is kept: the same bits",
          "parts, shapes and step are checked after loading (`tests/train/test_load_state.py`)", 30, 3,
          incomplete_checkpoints),
    Fault("S6", "damaged encoder of a finished run", "refused by name; once moved away, written again: the same bytes",
          "the SHA-256 in finished.json and saved.json (`tests/train/test_result_files.py`)", 30, 3, damaged_results),
    Fault("S6", "encoder of another run in a finished run",
          "refused by name; once moved away, written again: the same bytes",
          "the SHA-256 in saved.json and finished.json (`tests/train/test_result_files.py`)", 20, 3, foreign_encoders),
    Fault("S6", "files of the user with names that an unfinished run uses",
          "refused by name or renamed, never replaced or removed; then the same bits",
          "only files that the run has listed are replaced (`tests/train/test_result_files.py`, "
          "`tests/train/test_overwrite.py`)", 30, 4, files_of_the_user),
    Fault("S6", "files of the user with names of a finished run's files, and `--overwrite`",
          "renamed, never removed; the new run has the same bits",
          "only files that the run has provably written are removed (`tests/train/test_overwrite.py`: "
          "`test_overwrite_renames_a_users_file_that_has_the_name_of_a_runs_file`)", 40, 3, overwritten_runs),
]  # fmt: skip
