"""S7: symbolic links planted where a run writes."""

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from sample_pictures import make_pictures

from moco.files import temporary_name, write_atomically
from moco.recipe import RecipeError
from moco.train.pretrain import pretrain
from tests.faults.killed_runs import RECIPE
from tests.faults.matrix import Fault, Tally

PRECIOUS = b"precious"


def victim(place: Path) -> Path:
    """A folder and a file that no run may change."""
    (place / "home").mkdir(parents=True)
    (place / "home" / "file").write_bytes(PRECIOUS)
    return place / "home"


def linked(name: str, to: str) -> Callable[[Path], bool]:
    """`name` in the run folder is a link to the victim's folder or file: refused by name."""

    def laid(place: Path) -> bool:
        home, out = victim(place), place / "run"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(home / to)
        return _refused(place, out, name)

    return laid


def out_itself(place: Path) -> bool:
    home, out = victim(place), place / "run"
    out.symlink_to(home)
    return _refused(place, out, "run")


def a_temporary_name(place: Path) -> bool:
    """A link with a guessed temporary name is not written through."""
    home = victim(place)
    (place / "run").mkdir()
    guessed = mock.patch("moco.files.secrets.token_hex", return_value="0123abcd")
    with guessed, mock.patch("moco.files.os.getpid", return_value=1):
        temporary_name(place / "run" / "a").symlink_to(home / "file")
        try:
            write_atomically(place / "run" / "a", lambda file: file.write(b"x"))
        except FileExistsError:
            return not (place / "run" / "a").exists()
    return False


def a_finished_file(place: Path) -> bool:
    """A link with a final file's name is replaced; its target does not change."""
    home = victim(place)
    (place / "recipe.json").symlink_to(home / "file")
    write_atomically(place / "recipe.json", lambda file: file.write(b"x"))
    return not (place / "recipe.json").is_symlink() and (place / "recipe.json").read_bytes() == b"x"


def _refused(place: Path, out: Path, name: str) -> bool:
    try:
        pretrain(make_pictures(place / "images", 50), out, recipe=RECIPE, device="cpu", workers=0, overwrite=True)
    except (RecipeError, OSError) as error:
        return Path(name).name in str(error)
    return False


CASES: dict[str, Callable[[Path], bool]] = {
    "the run folder": out_itself,
    "checkpoints/": linked("checkpoints", "."),
    "encoder/": linked("encoder", "."),
    "nan/": linked("nan", "."),
    "the lock": linked(".lock", "file"),
    "the log of numbers": linked("metrics.jsonl", "file"),
    "the log of words": linked("train.log", "file"),
    "the list of bad images": linked("bad_images.csv", "file"),
    "a temporary name": a_temporary_name,
    "a finished file": a_finished_file,
}


def links(count: int, folder: Path) -> Tally:
    tally = Tally()
    for name, case in list(CASES.items())[:: max(1, len(CASES) // count)]:
        place = folder / str(tally.tried)
        good = case(place) and (place / "home" / "file").read_bytes() == PRECIOUS
        good = good and {path.name for path in (place / "home").iterdir()} == {"file"}
        if not good:
            print(f"not refused: {name}", file=sys.stderr)
        tally += good
    return tally


FAULTS = [
    Fault("S7", "links where a run writes", "refused, or replaced; their targets do not change",
          "a check at the start; `O_NOFOLLOW`, `O_EXCL` (`tests/faults/test_guards.py`: a plain open writes "
          "through a link)", len(CASES), 5, links),
]  # fmt: skip
