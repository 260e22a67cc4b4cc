"""`moco report`: write one HTML file and one JSON file about a run, or about several."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco.files import read_json, write_text
from moco.report.contents import report_of_run, report_of_runs
from moco.report.page import GENERATOR, render
from moco.text import message_of
from moco.train.report_contents import read_contents
from moco.train.reporters import Reporter
from moco.train.run_folder import RunError, RunFolder

NAMES = ("report.html", "report.json")  # in the folder of a run
MOST_RUNS = 8  # in a comparison: each has a colour of its own


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Write a report about one run, or one that compares several, and return the content of its JSON file.

    Args:
        out: the HTML file; the JSON file has the same name with .json. None: report.html in the folder of the run.

    Raises:
        RunError: no run, too many, or a file that is not a report and would be replaced.
    """
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(one) for one in runs]
    page = page_of(paths, out)
    contents = [read_contents(path, name=name) for path, name in zip(paths, _names(paths), strict=True)]
    if len(contents) == 1:
        content = report_of_run(contents[0], pictures=[])
    else:
        content = report_of_runs(contents)
    write_files(page, content, {})
    return content


def report_at_end(run: RunFolder, reporter: Reporter) -> Path | None:
    """Write the report of a run that has just finished, and return its page; None if that was not possible.

    No error leaves this function: the encoder is saved, and a missing report must not fail the run.
    """
    try:
        write_report(run.path)
    except Exception as error:
        reporter.say(
            f"caution: the report could not be written: {type(error).__name__}: {message_of(error)}. The run is "
            f"complete; this writes it again: moco report {shlex.quote(str(run.path))}"
        )
        return None
    return run.path / NAMES[0]


def page_of(paths: Sequence[Path], out: str | Path | None) -> Path:
    """The HTML file to write. Raises RunError if it cannot be written."""
    if not 1 <= len(paths) <= MOST_RUNS:
        raise RunError(f"a report expects 1 to {MOST_RUNS} runs, got {len(paths)}")
    if out is None and len(paths) > 1:
        raise RunError("a report on several runs needs the name of its file: --out FILE.html")
    page = paths[0] / NAMES[0] if out is None else Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--out expects a name that ends in .html, got {page}")
    if not page.parent.is_dir():
        raise RunError(f"{page} cannot be written: the folder {page.parent} does not exist. Create it first")
    check_replaceable(page)
    return page


def check_replaceable(page: Path) -> None:
    """Raise RunError if the page or its JSON file exists and is not a report."""
    for file, is_ours in ((page, _is_page), (page.with_suffix(".json"), _is_json)):
        if file.is_symlink() or (file.exists() and not (file.is_file() and is_ours(file))):
            raise RunError(f"{file} exists and is not a report of this program: move it away, or name another --out")


def _is_page(file: Path) -> bool:
    with file.open("rb") as content:
        return f'name="generator" content="{GENERATOR}"'.encode() in content.read(4096)


def _is_json(file: Path) -> bool:
    content = read_json(file)
    return isinstance(content, dict) and str(content.get("made_by", "")).startswith("momentum-contrast")


def write_files(page: Path, content: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
    """Write the JSON file, then the page. Each is complete, or stays as it was."""
    content = {**content, "json_name": page.with_suffix(".json").name}
    text = render(content, pictures)
    write_text(page.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    write_text(page, text)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each run: that of its folder, or its path where folders have the same name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
