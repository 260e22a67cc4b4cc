"""Check names, --out and table of `moco transfer`, before anything is read or written. Imports no torch."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from moco.files import read_json
from moco.recipe_error import RecipeError
from moco.text import escape
from moco.train.out_overlap import is_in

TABLE = "table.json"
RANDOM = "random"


def check_names(init: Mapping[str, str | Path], versus: str | None, bn_of: Mapping[str, str]) -> str:
    """The row that the others are compared with. Raises RecipeError for an invalid or an unknown name."""
    names = list(init)
    if not names:
        raise RecipeError("no weights to start from: give --init NAME=WEIGHTS, such as --init random")
    for name in names:
        if not re.fullmatch(r"\w[\w.+-]*", name) or name == TABLE:
            raise RecipeError(
                f"a name of --init is the name of a folder, so it expects letters, digits, '_', '-', '.' and '+', got "
                f"'{escape(name)}': give --init NAME=WEIGHTS"
            )
    if versus is not None and versus not in names:
        raise RecipeError(f"--versus expects one of {', '.join(names)}, got {versus!r}")
    if others := [name for name in bn_of if name not in names]:
        raise RecipeError(f"--bn {others[0]}={bn_of[others[0]]}: there is no --init {others[0]}")
    return versus or ("supervised" if "supervised" in names else names[0])


def check_network(init: Mapping[str, str | Path], model: str | None) -> None:
    """Raise RecipeError if neither `model` nor any of the weights tells the network."""
    if model is None and all(str(weights) == RANDOM for weights in init.values()):
        raise RecipeError("all weights are random: name the network with --model, such as resnet50")


def check_paths(data: Path, out: Path, test: Path | None, init: Mapping[str, str | Path], *, overwrite: bool) -> None:
    """Raises RecipeError where files of the user's could be replaced, or --out lies in the data."""
    check_folders(out, init)
    check_apart(out, data, test, init, overwrite=overwrite)
    check_table(out / TABLE)


def check_folders(out: Path, names: Collection[str]) -> None:
    """Raise RecipeError if `out`, or the folder of some weights in it, is a link or a file."""
    for folder in (out, *(out / name for name in names)):
        if folder.is_symlink() or (os.path.lexists(folder) and not folder.is_dir()):
            kind = "link" if folder.is_symlink() else "file"
            raise RecipeError(
                f"{escape(str(folder))} is a {kind}, and moco transfer needs a folder there, not a link to one: remove "
                "it, or name another --out"
            )


def check_apart(out: Path, data: Path, test: Path | None, init: Mapping[str, str | Path], *, overwrite: bool) -> None:
    """Raise RecipeError if `out` and the data overlap, or if --overwrite would remove weights in `out`."""
    real = os.path.realpath(out)
    for option, path in (("--data", data), ("--test", test)):
        if path is None or not path.exists():
            continue
        source = os.path.realpath(path)
        if is_in(source, real) or (path.is_dir() and is_in(real, source)):
            where = "is" if real == source else "lies in" if is_in(real, source) else "contains"
            raise RecipeError(
                f"--out {escape(str(out))} {where} {option} {escape(str(path))}, so runs would write into it: name "
                "an --out outside of it"
            )
    for name, weights in init.items():
        if overwrite and os.path.exists(weights) and is_in(os.path.realpath(weights), real):
            raise RecipeError(
                f"--init {name}={escape(str(weights))} lies in --out {escape(str(out))}, which --overwrite replaces: "
                "name another --out"
            )


def check_table(file: Path) -> None:
    """Raises RecipeError if `file` exists and is not a table of this command."""
    known = read_json(file) if file.is_file() and not file.is_symlink() else None
    if os.path.lexists(file) and not (isinstance(known, dict) and {"reference", "metrics", "rows"} <= known.keys()):
        raise RecipeError(
            f"{file} exists and is not a table of moco transfer, which would replace it: name another --out"
        )
