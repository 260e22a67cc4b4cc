"""`moco report`: write one HTML file and one JSON file about a run, or about several."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from torch import nn

from moco.atomic_output import local_path
from moco.data.sources.open import Sources
from moco.files import check_writable, read_json, write_text
from moco.report.contents import report_of_run, report_of_runs
from moco.report.page import REPORT_GENERATOR, render_report
from moco.report.picture_sections import PagePictures
from moco.text import message_of
from moco.train.report_contents import read_contents
from moco.train.reporters import Reporter
from moco.train.run_folder import RunError, RunFolder, check_is_run
from moco.train.run_pictures import RunImages, images_of_run
from moco.weights.own_files import read_run_id

NAMES = ("report.html", "report.json")  # in the folder of a run
NO_PICTURES = "No pictures yet: moco report RUN --data DATA makes them from the images of the run."
PATIENCE = 5.0  # the command may take so many times as long to read images as the end of a run
MOST_RUNS = 8  # in a comparison: each has a colour of its own


def write_report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data: Sources | None = None,
    model: nn.Module | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> dict[str, Any]:
    """Write a report about one run, or one that compares several, and return its content.

    It is the content of the JSON file but for `images`, the pictures themselves.

    Args:
        out: the HTML file; the JSON file has the same name with .json. None: report.html in the folder of the run.
        data: the images of one run, for pictures. None: the pictures of an earlier report stay.
        model: the module of a run with a backbone of your own, for pictures.

    Raises:
        RunError: no run, too many, or a file that is not a report and would be replaced. With `data`: several runs, or
            no checkpoint. DataError: no images, or fewer than two that can be read.
    """
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(one) for one in runs]
    page = report_page_path(paths, out)
    if len(paths) > 1:
        if data is not None:
            raise RunError("images (--data) are for the report of one run, not of several")
        contents = [read_contents(path, name=name) for path, name in zip(paths, _names(paths), strict=True)]
        content = report_of_runs(contents)
        write_files(page, content, {})
        return content
    if data is None:
        return _write_with(find_earlier_pictures(page, read_run_id(paths[0])), paths[0], page)
    check_is_run(paths[0])
    among = images_of_run(paths[0], data, model=model, device=device, workers=workers, patience=PATIENCE)
    return _write_one(paths[0], page, among.page_pictures())


def _write_with(kept: PagePictures | None, path: Path, page: Path) -> dict[str, Any]:
    """Write the report with the pictures of an earlier one; without them if its file was changed by hand."""
    if kept is not None:
        try:
            return _write_one(path, page, kept)
        except (ValueError, LookupError, TypeError, AttributeError, TemplateError):
            pass  # nothing is written yet; an error that has another cause occurs again below
    return _write_one(path, page, None)


def _write_one(
    path: Path, page: Path, pictures: PagePictures | None, *, no_pictures: str = NO_PICTURES
) -> dict[str, Any]:
    content = report_of_run(read_contents(path), pictures, no_pictures=no_pictures)
    write_files(page, content, {} if pictures is None else pictures.images)
    return content


def report_at_end(run: RunFolder, reporter: Reporter, among: Callable[[], RunImages]) -> Path | None:
    """Write the report of a run that has just finished, and return its page; None if that was not possible.

    No error leaves this function: the encoder is saved, and a missing report must not fail the run.
    """
    again = f"moco report {shlex.quote(str(run.path))}"
    page = run.path / NAMES[0]
    try:
        check_report_replaceable(page)
        try:
            pictures, reason = among().page_pictures(), ""
        except Exception as error:
            reason = f"The pictures could not be made: {type(error).__name__}: {message_of(error)}"
            reporter.say(f"caution: {reason}. This makes them again: {again} --data DATA")
            pictures = None
        _write_one(run.path, page, pictures, no_pictures=reason)
    except Exception as error:
        reporter.say(
            f"caution: the report could not be written: {type(error).__name__}: {message_of(error)}. The run is "
            f"complete; this writes it again: {again}"
        )
        return None
    return page


def find_earlier_pictures(page: Path, run_id: str | None) -> PagePictures | None:
    """The pictures of an earlier report of the same run; None if there are none."""
    stored = read_json(page.with_suffix(".json"))
    try:
        (run,), images = stored["runs"], stored["images"]
        text, sections = run["pictures"]["text"], run["pictures"]["sections"]
        if not (sections and run_id and run["run_id"] == run_id and isinstance(text, str) and isinstance(images, dict)):
            return None
    except (TypeError, KeyError, ValueError):
        return None
    return PagePictures(text, sections, images)


def report_page_path(paths: Sequence[Path], out: str | Path | None) -> Path:
    """The HTML file to write. Raises RunError if it cannot be written."""
    if not 1 <= len(paths) <= MOST_RUNS:
        raise RunError(f"a report expects 1 to {MOST_RUNS} runs, got {len(paths)}")
    if out is None and len(paths) > 1:
        raise RunError("a report on several runs needs the name of its file: --out FILE.html")
    page = paths[0] / NAMES[0] if out is None else local_path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--out expects a name that ends in .html, got {page}")
    if not page.parent.is_dir():
        raise RunError(f"{page} cannot be written: the folder {page.parent} does not exist. Create it first")
    check_report_replaceable(page)
    return page


def check_report_replaceable(page: Path) -> None:
    """Raise RunError if the page or its JSON file exists and is not a report."""
    for file, is_ours in ((page, _is_page), (page.with_suffix(".json"), _is_json)):
        if file.is_symlink() or (file.exists() and not (file.is_file() and is_ours(file))):
            raise RunError(f"{file} exists and is not a report of this program: move it away, or name another --out")
    check_writable(page)


def _is_page(file: Path) -> bool:
    with file.open("rb") as content:
        return f'name="generator" content="{REPORT_GENERATOR}"'.encode() in content.read(4096)


def _is_json(file: Path) -> bool:
    content = read_json(file)
    return isinstance(content, dict) and str(content.get("made_by", "")).startswith("momentum-contrast")


def write_files(page: Path, content: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
    """Write the JSON file, then the page. Each is complete, or stays as it was.

    Args:
        pictures: data URIs, by the ids that `content` has.
    """
    content = {**content, "json_name": page.with_suffix(".json").name, "images": dict(pictures)}
    text = render_report(content)
    write_text(page.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    write_text(page, text)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each run: that of its folder, or its path where folders have the same name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
