"""P2: SIGKILL while weights are exported or imported."""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

from moco.weights.encoder_folder import load_encoder
from moco.weights.export import export
from moco.weights.import_file import import_weights
from tests.faults.matrix import Fault, Tally

NETWORK = "timm/test_resnet"  # a small one


def to_timm(weights: Path, out: Path) -> None:
    export(weights, to="timm", out=out, architecture=NETWORK, overwrite=True)


def to_hf(weights: Path, out: Path) -> None:
    export(weights, to="hf", out=out, architecture=NETWORK)


def imported(weights: Path, out: Path) -> None:
    import_weights(weights, out=out, architecture=NETWORK)


def holds(out: Path, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the file or folder is complete, with these weights."""
    found = load_file(out) if out.is_file() else load_encoder(out)[0].backbone.state_dict()
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def in_fork(work: Callable[[], None], seconds: float | None = None) -> float:
    """Run `work` in a child, and kill it after `seconds`. Returns how long it ran [s]."""
    start, child = time.monotonic(), os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if seconds is None and status != 0:
        raise RuntimeError("the command failed without a kill")
    return time.monotonic() - start


def kills(count: int, folder: Path) -> Tally:
    """After a kill, `out` is complete or absent (an old file: unchanged); after the next command only `out` is left.

    Half of the kills fall in the last fifth of the time, when files are written.
    """
    rng, tally = random.Random(16), Tally()
    old, new = (timm.create_model("test_resnet", num_classes=0).state_dict() for _ in range(2))
    for name, tensors in (("old", old), ("new", new)):
        torch.save(tensors, folder / f"{name}.pth")
    cases = [(to_timm, "out.safetensors"), (to_hf, "hub"), (imported, "folder")]
    seconds = {}
    for work, name in cases:  # the second time, what is compiled or cached the first time does not count
        seconds[name] = [in_fork(lambda w=work, n=name, i=i: w(folder / "new.pth", folder / f"{i}-{n}")) for i in "12"]
    for trial in range(count):
        work, name = cases[trial % len(cases)]
        place = folder / f"try-{trial}"
        place.mkdir()
        out = place / name
        if work is to_timm:
            work(folder / "old.pth", out)
        whole = seconds[name][1]
        in_fork(lambda w=work, o=out: w(folder / "new.pth", o), rng.uniform(0.8 * whole * (trial % 2), 1.1 * whole))
        good = holds(out, new) or (work is to_timm and holds(out, old)) if out.exists() else work is not to_timm
        if work is to_timm or not out.exists():
            in_fork(lambda w=work, o=out: w(folder / "new.pth", o))
            good = good and [one.name for one in place.iterdir()] == [name]
        good = good and holds(out, new)
        tally += good
        if not good:
            print(f"try {trial}, {name}: {sorted(one.name for one in place.iterdir())}", file=sys.stderr)
    return tally


FAULTS = [
    Fault("P2", "SIGKILL of an export or import", "the file or folder is complete, or as before; the next command "
          "removes temporary files", "files are written under a temporary name and renamed when complete "
          "(`tests/test_staged.py`: killed at any call)",
          40, 3, kills),
]  # fmt: skip
