"""Trackers: `--log NAME` sends each record of metrics.jsonl to TensorBoard, Weights & Biases, MLflow or trackio.

A new tracker is one class and one entry in TRACKERS. Projects and servers are set by each tool's own environment
variables, such as WANDB_MODE or MLFLOW_TRACKING_URI. An error in a tracker is reported, and the run continues without
it: metrics.jsonl has all records.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from moco.recipe_error import RecipeError, unknown
from moco.text import extra, message_of
from moco.train.reporters import Reporter

PROJECT = "moco"  # where the environment names none
OUTCOMES = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker has to know about a run.

    Attributes:
        name: of the run folder.
        run_id: the same after a resume.
        settings: the recipe, by dotted field name.
        step: the last step of the checkpoint that the run resumes from. Records after it are sent a second time.
    """

    name: str
    folder: Path
    run_id: str
    settings: dict[str, Any]
    step: int


class Tracker(Protocol):
    """The interface of a tracker. It is constructed when the run starts or resumes."""

    package: str  # that must be installed

    def __init__(self, run: TrackedRun) -> None: ...
    def record(self, step: int, values: dict[str, float]) -> None: ...  # the numbers of one record
    def end(self, outcome: str) -> None: ...  # one of OUTCOMES


class TensorBoard:
    """Event files in RUN/tensorboard."""

    package = "tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # TensorBoard hides the events from purge_step on that an earlier process wrote
        purge = run.step + 1 if run.step else 0
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge, flush_secs=10)
        if not run.step:
            rows = [f"| {name} | {value} |" for name, value in run.settings.items()]
            self._writer.add_text("recipe", "\n".join(["| setting | value |", "|---|---|", *rows]), 0)

    def record(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, outcome: str) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run in the project $WANDB_PROJECT. It ignores records that were sent before a resume."""

    package = "wandb"

    def __init__(self, run: TrackedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # optional

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.name, id=run.run_id, resume="allow",
            config=run.settings, settings=wandb.Settings(console="off"),
        )  # fmt: skip

    def record(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def end(self, outcome: str) -> None:
        self._run.finish(exit_code={"finished": 0, "stopped": 75}.get(outcome, 1))


class MLflow:
    """A run in the experiment $MLFLOW_EXPERIMENT_NAME, with the recipe as its parameters."""

    package = "mlflow"
    _LONGEST = 6000  # characters of a parameter, MLflow's limit
    _MOST = 100  # parameters in one call

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]  # optional

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        found = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        earlier = self._client.search_runs([found], f"tags.moco_run_id = '{run.run_id}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(found, run_name=run.name, tags={"moco_run_id": run.run_id})
            self._id = made.info.run_id
            self._log_settings(run.settings)
        last = earlier[0].data.metrics.get("step") if earlier else None
        self._sent = -1 if last is None else int(last)

    def _log_settings(self, settings: dict[str, Any]) -> None:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        rows = [Param(name, str(value)[: self._LONGEST]) for name, value in settings.items()]
        for start in range(0, len(rows), self._MOST):
            self._client.log_batch(self._id, params=rows[start : start + self._MOST])

    def record(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        if step <= self._sent:  # before a resume
            return
        now = int(1000 * time.time())
        rows = [Metric(name, value, now, step) for name, value in {**values, "step": step}.items()]
        self._client.log_batch(self._id, metrics=rows)

    def end(self, outcome: str) -> None:
        self._client.set_terminated(self._id, {"finished": "FINISHED", "stopped": "KILLED"}.get(outcome, "FAILED"))


class Trackio:
    """A run in the project $TRACKIO_PROJECT."""

    package = "trackio"

    def __init__(self, run: TrackedRun) -> None:
        import trackio  # pyright: ignore[reportMissingImports]  # optional

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        resume = "allow" if run.step else "never"
        self._run = trackio.init(project=project, name=run.name, config=run.settings, resume=resume, embed=False)

    def record(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def end(self, outcome: str) -> None:
        self._run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio,
}  # fmt: skip


def check_trackers(names: Sequence[str]) -> None:
    """Raise RecipeError for a name that is no tracker, or whose package is not installed. Imports no package."""
    for name in names:
        if name not in TRACKERS:
            raise RecipeError(unknown("tracker", name, list(TRACKERS)))
        if find_spec(package := TRACKERS[name].package) is None:
            how = extra("log") if name == "tensorboard" else f"pip install {package}"
            raise RecipeError(f"--log {name} needs the package {package}, which is not installed: {how}")


class Trackers:
    """A context that sends records to trackers, and ends them in the way in which the run ends."""

    def __init__(self, names: Sequence[str]):
        self.names, self._open = names, dict[str, Tracker]()
        self._reporter: Reporter | None = None

    def start(self, run: TrackedRun, reporter: Reporter) -> Reporter:
        """Start the trackers, and return a reporter that also sends them each record."""
        if not self.names:
            return reporter
        self._reporter = reporter
        for name in self.names:
            try:
                with redirect_stdout(sys.stderr):  # stdout has results only
                    self._open[name] = TRACKERS[name](run)
            except Exception as error:  # of any package, such as a missing login
                self._report(name, error)
        return Tracked(reporter, self)

    def send(self, record: dict[str, Any]) -> None:
        values = numbers(record)
        step = int(values.pop("step", 0))
        for name, tracker in list(self._open.items()):
            try:
                tracker.record(step, values)
            except Exception as error:
                self._report(name, error)
                del self._open[name]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        from moco.train.stop_on_signals import Stopped  # imports torch, which the checks of the command do not need

        outcome = "finished" if kind is None else "stopped" if issubclass(kind, Stopped) else "failed"
        for name, tracker in self._open.items():
            try:
                with redirect_stdout(sys.stderr):
                    tracker.end(outcome)
            except Exception as failure:
                self._report(name, failure)

    def _report(self, name: str, error: Exception) -> None:
        if self._reporter is not None:
            self._reporter.say(
                f"caution: --log {name} failed: {type(error).__name__}: {message_of(error)}. The run continues without "
                "it; metrics.jsonl has all records"
            )


class Tracked:
    """Passes reports on to another reporter, and records to trackers too."""

    def __init__(self, reporter: Reporter, trackers: Trackers):
        self._reporter, self._trackers = reporter, trackers

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self._reporter.box(title, rows)

    def say(self, text: str) -> None:
        self._reporter.say(text)

    def live(self, *parts: str) -> None:
        self._reporter.live(*parts)

    def metrics(self, record: dict[str, Any]) -> None:
        self._reporter.metrics(record)
        self._trackers.send(record)


def numbers(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record; those in a dict by names such as `probe/rank`. Texts are left out, booleans are 0 or 1.

    >>> numbers({"step": 3, "loss": 1.5, "probe": {"rank": 7.0}, "verdict": "ok", "collapsed": False})
    {'step': 3, 'loss': 1.5, 'probe/rank': 7.0, 'collapsed': 0}
    """
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = int(value) if isinstance(value, bool) else value
    return found
