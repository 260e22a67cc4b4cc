"""S1: hostile files, given to every function that reads weights or checkpoints."""

import io
import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save

from moco.encoders import build
from moco.recipe import EncoderSpec
from moco.train import checkpoint
from moco.train.checkpoint import CheckpointError
from moco.weights.encoder_folder import WeightsError, initialize, load_encoder
from moco.weights.import_file import import_weights
from moco.weights.load import read_weights
from moco.weights.tensors import read_tensors
from tests.faults.hostile_files import hostile_contents, hostile_pickles, hostile_safetensors
from tests.faults.matrix import Fault, Tally

SECONDS, MEMORY = 20, 4 << 30  # of CPU that one file may take; the process's address space beyond what it has [bytes]


def as_checkpoint(file: Path, place: Path) -> None:
    checkpoint.read_checkpoint(file)


def as_newest(file: Path, place: Path) -> None:
    shutil.copy(file, place / "step_00000001.pt")
    path = checkpoint.newest_intact(place)
    assert path is not None
    checkpoint.read_checkpoint(path)


def as_weights(file: Path, place: Path) -> None:
    load_encoder(file, architecture="torchvision/resnet18")


def as_init(file: Path, place: Path) -> None:
    read_weights(file, whole=True)
    read_tensors(file)  # `find` leaves it to others to see that the tensors are of a network
    load_encoder(file, architecture="torchvision/resnet18")


def as_import(file: Path, place: Path) -> None:
    import_weights(file, out=place / "imported", architecture="torchvision/resnet18")


def as_run(file: Path, place: Path) -> None:
    (place / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(file, place / "run" / "checkpoints" / "step_00000009.pt")
    load_encoder(place / "run")


def as_imported(file: Path, place: Path) -> None:
    (place / "encoder").mkdir()
    (place / "encoder" / "model.safetensors").write_bytes(save({}))
    (place / "encoder" / "config.json").write_bytes(b"{}")
    shutil.copy(file, place / "rest.pt")
    read_weights(place, whole=True)


def as_encoder_folder(file: Path, place: Path) -> None:
    shutil.copy(file, place / "model.safetensors")
    (place / "config.json").write_text("{}")
    load_encoder(place)


def as_encoder(file: Path, place: Path) -> None:
    load_encoder(file)


def as_f_q(file: Path, place: Path) -> None:
    initialize(build(EncoderSpec(name="resnet18", width=0.125)), file)


def as_folder(file: Path, place: Path) -> None:
    import_weights(file, out=place / "imported")


PICKLE_READERS = [as_checkpoint, as_newest, as_weights, as_init, as_import, as_run, as_imported]
CONTENT_READERS = [as_encoder, as_f_q, as_folder]
SAFETENSORS_READERS = [as_weights, as_init, as_import, as_encoder_folder]


def refused(reader: Callable[[Path, Path], None], file: Path, place: Path, canary: Path) -> bool:
    """Whether the reader raises a typed error that names a file, within limits of time and memory, in a new process."""
    place.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            warnings.simplefilter("ignore")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(10 * SECONDS)  # ends a reader that blocks
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            reader(file, place)
            print(f"{file.name} was read by {reader.__name__}", file=sys.stderr)
        except (WeightsError, CheckpointError) as error:
            names = (file.name, "step_00000001.pt", "step_00000009.pt", "rest.pt", "model.safetensors")
            code = 0 if any(name in str(error) for name in names) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    good = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and not canary.exists()
    if not good:
        print(f"{file.name}: {reader.__name__}", file=sys.stderr)
    return good


def tried(files: dict[str, bytes], ending: str, readers: list, count: int, folder: Path) -> Tally:
    """A file counts as refused when every reader refuses it."""
    tally, canary = Tally(), folder / "canary"
    for i, (name, content) in enumerate(list(files.items())[:: max(1, len(files) // count)]):
        file = folder / f"file{i}{ending}"
        file.write_bytes(content)
        (folder / f"file{i}.json").write_text(json.dumps(name))
        good = [refused(reader, file, folder / f"{i}-{reader.__name__}", canary) for reader in readers]
        if not all(good):
            print(f"not refused: {name}", file=sys.stderr)
        tally += all(good)
    return tally


def pickles(count: int, folder: Path) -> Tally:
    return tried(hostile_pickles(folder / "canary"), ".pth", PICKLE_READERS, count, folder)


def contents(count: int, folder: Path) -> Tally:
    made = {}
    for name, content in hostile_contents().items():
        file = io.BytesIO()
        torch.save(content, file)
        made[name] = file.getvalue()
    return tried(made, ".pth", CONTENT_READERS, count, folder)


def safetensors(count: int, folder: Path) -> Tally:
    return tried(hostile_safetensors(), ".safetensors", SAFETENSORS_READERS, count, folder)


FAULTS = [
    Fault(
        "S1", "hostile pickles, each given to seven readers", "refused by name; nothing executed",
        "`torch.load(weights_only=True)`, typed errors (`tests/faults/test_guards.py`: with `weights_only=False` the "
        "canary appears)", 52, 12, pickles,
    ),
    Fault(
        "S1", "files without plain tensors or finite numbers, each given to three readers", "refused by name",
        "the structure and every value are checked after reading (`tests/faults/test_guards_of_readers.py`: without "
        "both, some are accepted)", 16, 6, contents,
    ),
    Fault(
        "S1", "hostile safetensors headers, each given to four readers", "refused by name",
        "the format's own checks, typed errors (`tests/faults/test_guards_of_readers.py`: a reader that trusts the "
        "header accepts some)", 15, 8, safetensors,
    ),
]  # fmt: skip
