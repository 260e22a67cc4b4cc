"""Read a run folder for its report: state, verdicts, facts, and the commands to go on with.

A file that is missing or damaged leaves its part out.
"""

import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco.diagnose.history import measure_waiting_share, measurements
from moco.diagnose.verdicts import Evidence, judge_evidence
from moco.files import is_special, read_json
from moco.recipe import Recipe
from moco.report.contents import RunContents, RunState
from moco.report.run_charts import LoggedRun
from moco.text import duration, plural
from moco.train.run_folder import RunError, RunFolder, has_numbers_of_the_end
from moco.train.stop_reason import STOPPED_BY
from moco.train.summary import batch_norm, dictionary, network
from moco.weights.library_equivalent import library_equivalent
from moco.weights.load import WeightsError
from moco.weights.own_files import last_step, read_run_id

LOG_LINES = 12  # of train.log that are shown
LOG_BYTES = 2**16  # of its end that are read

Rows = list[tuple[str, str]]


def read_contents(path: Path, *, name: str = "", data: str = "DATA") -> RunContents:
    """What the folder of a run has for a report.

    Args:
        name: of the run; empty: that of its folder.
        data: the images, as a command would name them.

    Raises:
        RunError: no run. RecipeError: a damaged recipe.
    """
    run = RunFolder(path)
    if not run.recipe_file.is_file():
        raise RunError(f"{path} is not a run: it has no recipe.json")
    recipe, records = run.recipe(), run.metrics()
    starts = _starts(run)
    finished = read_json(run.path / "finished.json") if run.finished else None
    last: dict[str, Any] = {}
    for record in records:
        last |= {key: value for key, value in record.items() if _is_number(value)}
    log = _log(run)
    state = _state(run, last, log, finished)
    logged = LoggedRun(name or path.resolve().name, records, recipe, not (run.path / "init.json").exists())
    return RunContents(
        logged, str(path), state, _diagnosis(run, recipe, records), read_json(run.path / "scores.json"),
        read_json(run.path / "compare.json"), _summary(recipe, starts), read_run_id(run.path) or "",
        facts(run, recipe, starts, finished), _bad_images(run), log, _next(path, recipe, starts, state, data), last,
        recipe.fields(),
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _starts(run: RunFolder) -> list[dict[str, Any]]:
    found = read_json(run.path / "provenance.json")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _log(run: RunFolder) -> list[str]:
    """The last lines of train.log."""
    file = run.path / "train.log"
    if is_special(file) or not file.is_file():
        return []
    try:
        with file.open("rb") as lines:
            lines.seek(max(0, file.stat().st_size - LOG_BYTES))
            return lines.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def _state(run: RunFolder, last: Mapping[str, Any], log: Sequence[str], finished: Any) -> RunState:
    step, total = last.get("step", 0), last_step(run.path)
    if has_numbers_of_the_end(finished):
        time = duration(finished["seconds"])
        return RunState("finished", f"{plural(finished['steps'], 'step')} in {time}", "good")
    where = f"at step {step:,}" + (f" of {total:,}" if total else "")
    reason = log[-1].partition(STOPPED_BY)[2] if log else ""
    if reason:
        return RunState("stopped", f"{where}: {reason}", "bad")
    return RunState("not finished", f"{where}: still running, or ended early", "neutral")


def _diagnosis(run: RunFolder, recipe: Recipe, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The verdicts: from diagnosis.json if it has the newest step, otherwise from the measurements in the log."""
    stored, measured = read_json(run.path / "diagnosis.json"), measurements(list(records))
    if _is_diagnosis(stored) and (not measured or stored["step"] >= measured[-1][0]):
        return stored
    if not measured:
        return None
    total = max(recipe.optim.total_steps(measured[-1][1].images), measured[-1][0])
    return judge_evidence(Evidence(measured, total, measure_waiting_share(list(records)))).to_dict()


def _is_diagnosis(stored: Any) -> bool:
    def is_verdict(one: Any) -> bool:
        texts = ("word", "sentence", "advice")
        return isinstance(one, dict) and all(isinstance(one.get(name), str) for name in texts) and "fault" in one

    if not isinstance(stored, dict) or not isinstance(stored.get("step"), int):
        return False
    others = stored.get("others")
    all_of_them = [stored.get("classification"), stored.get("dense"), *(others if isinstance(others, list) else [None])]
    return all(map(is_verdict, all_of_them))


def _bad_images(run: RunFolder) -> Rows:
    file = run.path / "bad_images.csv"
    try:
        if is_special(file):
            return []
        with file.open(newline="", encoding="utf-8", errors="replace") as lines:
            return [(row[0], row[1]) for row in csv.reader(lines) if len(row) > 1][1:]
    except (OSError, csv.Error):
        return []


def _summary(recipe: Recipe, starts: Sequence[Mapping[str, Any]]) -> str:
    """What was run on what, in a line."""
    images, epochs = starts[-1].get("images") if starts else None, recipe.optim.epochs
    on = f" on {plural(images, 'image')}" if isinstance(images, int) else ""
    length = f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'}"
    return f"{network(recipe.encoder)} by recipe {recipe.name}{on} at {recipe.data.size} pixels, {length}"


def facts(
    run: RunFolder, recipe: Recipe, starts: Sequence[Mapping[str, Any]], finished: Any
) -> dict[str, list[tuple[str, str]]]:
    """What was run, on what, and where: rows of name and text, by group."""
    first, newest = (starts[0], starts[-1]) if starts else ({}, {})
    return {
        "Images": _about_images(newest, finished), "Settings": _settings(run, recipe, newest.get("images")),
        "Machine": _machine(newest), "Time and versions": _provenance(first, starts, finished),
    }  # fmt: skip


def _about_images(start: Mapping[str, Any], finished: Any) -> Rows:
    rows: Rows = []
    if isinstance(start.get("images"), int):
        rows.append(("images used", f"{start['images']:,}"))
    skipped = start.get("skipped")
    if isinstance(skipped, dict):
        total = sum(count for count in skipped.values() if isinstance(count, int))
        rows.append(("skipped files", f"{total:,}"))
        rows += [(str(reason), f"{count:,} skipped") for reason, count in skipped.items() if isinstance(count, int)][:8]
    if isinstance(finished, dict) and isinstance(finished.get("bad_images"), int):
        rows.append(("unreadable", f"{finished['bad_images']:,}"))
    if isinstance(start.get("data_fingerprint"), str):
        rows.append(("fingerprint", start["data_fingerprint"][:12]))
    return rows


def _settings(run: RunFolder, recipe: Recipe, images: Any) -> Rows:
    encoder, optim, size = recipe.encoder, recipe.optim, recipe.data.size
    rows = [
        ("recipe", f"{recipe.name} ({recipe.source})"),
        ("encoder", f"{network(encoder)}, {encoder.head} head to {encoder.dim} dimensions"),
        ("views", f"{size} x {size} pixels"),
        *([("dictionary", dictionary(recipe, images))] if isinstance(images, int) and images else []),
        ("momentum m", recipe.method.momentum.describe()),
        ("batch", f"{optim.batch_size:,} images, {batch_norm(recipe)}"),
        ("learning rate", optim.lr.describe()),
        ("length", f"{optim.epochs:g} {'epoch' if optim.epochs == 1 else 'epochs'}"),
        ("precision", recipe.compute.precision),
        ("seed", str(recipe.seed)),
    ]
    noted = read_json(run.path / "init.json")
    weights = noted.get("weights") if isinstance(noted, dict) else None
    return [*rows, ("initial weights", str(weights) if weights else "random")]


def _machine(start: Mapping[str, Any]) -> Rows:
    machine = start.get("machine")
    if not isinstance(machine, dict):
        return []
    names = {"system": "system", "processor": "processor", "cores": "cores", "threads": "threads", "device": "device"}
    rows = [(title, str(machine[name])) for name, title in names.items() if machine.get(name) is not None]
    rows += [("accelerator", str(machine["accelerator"]))] if machine.get("accelerator") else []
    return rows + [(name, str(start[name])) for name in ("ranks", "workers") if name in start]


def _provenance(first: Mapping[str, Any], starts: Sequence[Mapping[str, Any]], finished: Any) -> Rows:
    rows: Rows = []
    if isinstance(first.get("started"), str):
        rows.append(("started", first["started"].replace("T", " ").replace("+00:00", " UTC")))
    if len(starts) > 1:
        rows.append(("resumed", f"{plural(len(starts) - 1, 'time')}, at step "
                     f"{', '.join(str(one.get('step', '?')) for one in starts[1:][:5])}"))  # fmt: skip
    if has_numbers_of_the_end(finished):
        rows.append(("training time", duration(finished["seconds"])))
    versions = starts[-1].get("versions") if starts else None
    if isinstance(versions, dict):
        rows += [(str(name), str(version)) for name, version in versions.items()]
    if isinstance(command := first.get("command"), list):
        rows.append(("command", _typed(command)))
    return rows


def _typed(command: Sequence[Any]) -> str:
    """A command as it is typed: sys.argv has the path of the program."""
    program, *rest = map(str, command or [""])
    path = Path(program)
    if path.name == "moco" or path.parts[-2:] == ("moco", "__main__.py"):
        return shlex.join(["moco", *rest])
    return shlex.join([*(["python"] if path.suffix == ".py" else []), program, *rest])


def _export_options(recipe: Recipe) -> str:
    """To timm if it has the network, else to ONNX, which takes any."""
    try:
        library_equivalent(recipe.encoder, "timm", recipe.data.size)
    except WeightsError:
        return "--to onnx --out encoder.onnx"
    return "--to timm --out encoder.safetensors"


def _next(path: Path, recipe: Recipe, starts: Sequence[Mapping[str, Any]], state: RunState, data: str) -> Rows:
    """What can be done now, and the commands."""
    run = shlex.quote(str(path))
    if state.word != "finished":
        command = starts[-1].get("command") if starts else None
        again = _typed(command) if isinstance(command, list) else f"moco pretrain {data} --out {run}"
        return [
            ("Resume the run, bit for bit: the same command again.", again),
            ("Measure its checkpoints without labels.", f"moco diagnose {run} --data {data}"),
        ]
    longer, settings = shlex.quote(f"{path}-longer"), shlex.quote(f"{path}/recipe.json")
    return [
        ("Is it worth it? Beside baselines, on labelled images.", f"moco compare {run} LABELLED_FOLDER"),
        ("Accuracy on labelled images: kNN, linear, few labels.", f"moco eval {run} LABELLED_FOLDER"),
        ("A map of all images, with search by example.", f"moco atlas {run} {data}"),
        ("The images most similar to an example.", f"moco search {run} EXAMPLE.jpg --data {data}"),
        ("Near-duplicates among all images.", f"moco dedup {run} {data}"),
        ("Features of images, for search and clustering.", f"moco embed {run} {data} --to features.parquet"),
        ("Use the encoder in other programs.", f"moco export {run} {_export_options(recipe)}"),
        ("Fine-tune a detector, beside random weights.",
         f"moco transfer detect --data annotations.json --init random --init mine={run} --out runs/transfer"),
        ("Train longer, from these weights.",
         f"moco pretrain {data} --recipe {settings} --init {run} --epochs {recipe.optim.epochs:g} --out {longer}"),
    ]  # fmt: skip
