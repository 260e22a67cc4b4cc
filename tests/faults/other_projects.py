"""The faults of checkpoints, tried on the functions by which other projects save theirs.

python -m tests.faults.other_projects     prints the table of docs/reliability.md
"""

import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.faults.damaged_checkpoints import damaged, killed_in, ours
from tests.faults.step_marked_state import SIZE, state

KILLS, DAMAGES = 500, 300


def plain(folder: Path, step: int) -> None:
    """`torch.save` to the final name, as most training scripts do."""
    torch.save({"state": state(step).state_dict()}, folder / "checkpoint.pt")


def step_in(path: Path) -> int:
    """The step of the file; -1: it does not load; -2: it loads with other content."""
    try:
        found = torch.load(path, weights_only=True)["state"]
        step = found["clock"]["step"]
    except Exception:
        return -1
    return step if torch.equal(found["model"]["x"], torch.arange(SIZE) + float(step)) else -2


def torn(folder: Path, save: Callable[[Path, int], None], newest: Callable[[Path], Path | None]) -> int:
    """The number of kills inside a save after which no intact checkpoint is loaded."""
    rng, lost, step = random.Random(2), 0, 0
    for _ in range(KILLS):
        told = killed_in(save, folder, step + 1, rng.uniform(0.002, 0.06))
        path = newest(folder)
        found = -1 if path is None else step_in(path)
        lost += found not in (told, told + 1) and told > 0
        step = max(told, found, step)
    return lost


def silent(file: Path) -> tuple[int, int]:
    """The numbers of damaged files that do not load, and that load with other content."""
    rng, content = random.Random(3), file.read_bytes()
    found = []
    for _ in range(DAMAGES):
        file.write_bytes(damaged(content, rng)[1])
        found.append(step_in(file))
    return found.count(-1), found.count(-2)


def queue_after_a_resume() -> tuple[int, int]:
    """The number of keys in lightly's memory bank, and of those that its state dict restores."""
    from lightly.models.modules.memory_bank import MemoryBankModule

    def bank() -> MemoryBankModule:
        made = MemoryBankModule(size=(64, 8))
        for _ in range(8):
            made(torch.nn.functional.normalize(torch.randn(16, 8), dim=1), update=True)
        return made

    before, after = bank(), MemoryBankModule(size=(64, 8))
    after.load_state_dict(before.state_dict())
    if after.bank.numel() != before.bank.numel():
        return 64, 0
    return 64, int((after.bank.T == before.bank.T).all(dim=-1).sum())


def main() -> None:
    from moco.train import checkpoint

    folder = Path(tempfile.mkdtemp())
    try:
        for name in ("plain", "ours"):
            (folder / name).mkdir()
        warnings.simplefilter("ignore")
        print(f"kills inside a save, {KILLS}:")
        print(f"  torch.save to the final name: {torn(folder / 'plain', plain, lambda at: at / 'checkpoint.pt')} lost")
        print(f"  moco: {torn(folder / 'ours', ours, checkpoint.newest_intact)} lost")
        plain(folder / "plain", 7)
        broken, wrong = silent(folder / "plain" / "checkpoint.pt")
        print(f"damaged files, {DAMAGES}: torch.load refuses {broken}, loads {wrong} with another content")
        print(
            "keys of a queue of {} that are there after a restart: lightly's memory bank {}".format(
                *queue_after_a_resume()
            )
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
