"""S4: markup, formulas and terminal escapes in names and messages have no effect wherever they are shown."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from moco.cli import app
from moco.data.decode import decode as decode_module
from tests.faults.forked_child import in_child
from tests.faults.matrix import Fault, Tally

PAYLOADS = [
    "<script>alert(1)<script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](evil.example)",
    "`x` <b>y", "=cmd|' C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07",
    "x\r\n2026-01-01 all is well", "\u202egnp.exe", "[bold red]x[blink] \x9b31m {{7*7}} %s%n \udcff",
]  # fmt: skip
PLACES = ("file", "class", "run", "message")
SMALL = [
    "--recipe", "demo", "--epochs", "1", "--set", "encoder.width=0.0625", "--set", "encoder.dim=8", "--set",
    "data.size=16", "--set", "data.eval_resize=16", "--set", "method.size=8", "--set", "optim.batch_size=8",
    "--workers", "0", "--device", "cpu",
]  # fmt: skip


def pictures(folder: Path, payload: str, place: str) -> Path:
    """32 pictures and a broken one, with the payload in its name, or in that of its class."""
    names = {"file": ("class", f"{payload}.png"), "class": (payload, "x.png")}.get(place, ("class", "x.png"))
    for i in range(32):
        (folder / f"other{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"other{i % 2}" / f"{i:02d}.png")
    (folder / names[0]).mkdir()
    (folder / names[0] / names[1]).write_bytes(b"MARKED")
    return folder


@contextlib.contextmanager
def broken_with(payload: str) -> Iterator[None]:
    """While open, decoders say `payload` of the broken picture."""
    real = decode_module.decode_file

    def decode_file(file: decode_module.File) -> np.ndarray:
        if file.read(6) == b"MARKED":
            raise ValueError(payload)
        file.seek(0)
        return real(file)

    with (
        mock.patch.object(decode_module, "decode_file", decode_file),
        mock.patch("moco.data.check.inspect_file.decode_file", decode_file),
    ):
        yield


def is_text(output: str) -> bool:
    """Whether the output has no control characters; a live line starts with a carriage return."""
    return all(line.isprintable() for line in output.replace("\r", "\n").split("\n"))


def is_log(text: str) -> bool:
    """Whether each line starts with a time, so that no message has added a line."""
    return is_text(text) and all(re.match(r"\d{4}-\d\d-\d\dT[\d:+]+ ", line) for line in text.splitlines())


def is_table(data: bytes) -> bool:
    """Whether no cell of a CSV file is a formula."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    return all(len(row) == 2 for row in rows) and not any(
        cell[:1] in tuple("=+-@\t\r\n") for row in rows for cell in row
    )


def is_plain_markdown(text: str, payload: str) -> bool:
    """Whether the payload appears only in code spans."""
    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return is_text(text) and not any(part in outside for part in (payload, "<script", "<img", "javascript:", "evil."))


def stays_text(folder: Path, payload: str, place: str) -> str:
    """The output in which the payload has an effect; "" if there is none."""
    images = pictures(folder / "images", payload, place)
    out = folder / (payload if place == "run" else "run")
    message = payload if place == "message" else "cannot be read"
    said = {}
    with broken_with(message):
        for name, arguments in {
            "run": ["pretrain", images, "--out", out, *SMALL],
            "run that ends at it": ["pretrain", images, "--out", folder / f"{out.name}2", *SMALL, "--max-bad", "0"],
            "check": ["check", images, "--duplicates"],
            "runs ls": ["runs", "ls", folder],
        }.items():
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            said[name] = result.stdout + result.stderr
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                return f"{name}: {result.exception!r}"
    checks = {f"output of {name}": is_text(text) for name, text in said.items()}
    checks["train.log"] = is_log((out / "train.log").read_text(encoding="utf-8", errors="surrogateescape"))
    checks["bad_images.csv"] = is_table((out / "bad_images.csv").read_bytes())
    checks["model card"] = is_plain_markdown((out / "encoder" / "README.md").read_text(), payload)
    return ", ".join(name for name, well in checks.items() if not well)


def injected(count: int, scratch: Path) -> Tally:
    """Each payload in each place: 15 and 4 have no common divisor."""
    tally = Tally()
    stays_text(scratch, "nothing", "file")  # do slow first-time work once, and not in each child
    for trial in range(count):
        payload, place = PAYLOADS[trial % len(PAYLOADS)], PLACES[trial % len(PLACES)]
        folder = scratch / str(trial)
        folder.mkdir()
        seen = in_child(lambda payload=payload, place=place, folder=folder: stays_text(folder, payload, place))
        good = seen is not None and seen.answer == ""
        tally += good
        if not good:
            print(f"{payload!r} in the name of a {place}: {seen}")
    return tally


FAULTS = [
    Fault(
        "S4", "markup, formulas, terminal escapes in names and messages",
        "plain text in console, train.log, bad_images.csv, model card and `moco check`",
        "names are escaped, cells guarded, facts in code spans (`tests/faults/test_guards_of_names.py`: tries "
        "are lost without each)",
        60, 12, injected,
    ),
]  # fmt: skip
