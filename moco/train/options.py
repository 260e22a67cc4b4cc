"""The options of a run that are not in its recipe: the same in Python and on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from moco.recipe_error import RecipeError

RESUME = ("auto", "never", "must")
ON_COLLAPSE = ("warn", "stop")


@dataclass(frozen=True)
class RunOptions:
    """Device and workers, scores, checkpoints, and what is tolerated. None of them changes a result.

    Attributes:
        resume: "auto" continues a run in the folder; "never" refuses a folder with a run; "must" one without.
        overwrite: remove the run in the folder, and start again.
        accept_data_change: continue although images were added, removed or changed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: threads or processes that read images; None: one a core, at most 8.
        processes: the workers are processes: for many cores and a fast GPU.
        eval_data: labelled images for a kNN score during training, every `eval_every` epochs.
        save_every: steps between checkpoints; None: one a minute.
        wait_for_saves: training waits until each checkpoint is on the disk, which spares the memory of the copy that is
            otherwise written beside training.
        keep: number of newest checkpoints to keep.
        keep_every: also keep the checkpoint of every N-th step.
        on_nan: at a step whose loss, keys or gradient are not finite, which changes nothing: "stop" the run, or
            "skip:N": skip up to N such steps.
        on_collapse: at two measurements in a row of collapsed embeddings: "warn", or "stop" after saving a checkpoint.
        diagnose_every: steps between two measurements of the diagnosis; 0: none; None: as many as cost less than 2 %.
        max_bad: unreadable images to tolerate: a number, or a share below 1; None: 0.1 %, at least 10.
        patience: minutes that a step or a checkpoint may take (setup and scores: four times as long) before the process
            prints the stack of every thread and ends; None or 0: no limit (the command's default is 30).
        compare: compare the encoder with baselines at the end of a run of a minute or more, if labels are at hand, for
            at most 5 % of its time, or 5 s (docs/compare.md).
        log: trackers that get each record of metrics.jsonl: "tensorboard", "wandb", "mlflow", "trackio".
        report: write report.html and report.json at the end of the run.
        dry_run: make all checks, print the plan and return.

    Raises:
        RecipeError: an option has a value that it cannot have.
    """

    resume: str = "auto"
    overwrite: bool = False
    accept_data_change: bool = False
    device: str = "auto"
    workers: int | None = None
    processes: bool = False
    eval_data: str | Path | None = None
    eval_every: int | None = None
    save_every: int | None = None
    wait_for_saves: bool = False
    keep: int = 3
    keep_every: int | None = None
    on_nan: str = "stop"
    on_collapse: str = "warn"
    diagnose_every: int | None = None
    max_bad: float | None = None
    patience: float | None = None
    compare: bool = True
    log: str | Sequence[str] = ()
    report: bool = True
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.resume not in RESUME:
            raise RecipeError(f"resume expects {', '.join(RESUME[:-1])} or {RESUME[-1]}, got {self.resume!r}")
        if self.on_collapse not in ON_COLLAPSE:
            raise RecipeError(f"on_collapse expects {' or '.join(ON_COLLAPSE)}, got {self.on_collapse!r}")
        every = self.diagnose_every
        if every is not None and (not isinstance(every, int) or every < 0):
            raise RecipeError(f"diagnose_every expects a number of steps, or 0 for none, got {every!r}")
        for name in ("overwrite", "accept_data_change", "processes", "wait_for_saves", "compare", "report", "dry_run"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(f"{name} expects True or False, got {getattr(self, name)!r}")
        for name in ("eval_every", "save_every", "keep", "keep_every"):
            value = getattr(self, name)
            if (value is not None or name == "keep") and (not isinstance(value, int) or value < 1):
                raise RecipeError(f"{name} expects a whole number of at least 1, got {value!r}")
        if self.patience is not None and not self.patience >= 0:
            raise RecipeError(f"patience expects 0 or more minutes, or None, got {self.patience!r}")
        allowed_skips(self.on_nan)

    @property
    def trackers(self) -> list[str]:
        """The names in `log`, each once."""
        return list(dict.fromkeys([self.log] if isinstance(self.log, str) else self.log))

    def resume_after_restart(self) -> "RunOptions":
        """The options after torchrun has restarted the process: continue the run."""
        return replace(self, overwrite=False, resume="auto")


def allowed_skips(on_nan: str) -> int:
    """The number of steps that a run may skip: 0 for `stop`, N for `skip:N`. Raises RecipeError for other values."""
    what, _, count = on_nan.partition(":")
    if on_nan == "stop":
        return 0
    if what != "skip" or not count.isdecimal() or not int(count):
        raise RecipeError(
            f"--on-nan expects stop, or skip:N with the number of steps that may be skipped, got '{on_nan}'"
        )
    return int(count)


def count_of_devices(devices: str | None) -> int | None:
    """The number that `--devices` asks for; None: auto, all GPUs. Raises RecipeError for other values."""
    if devices == "auto":
        return None
    count = 1 if devices is None else int(devices) if devices.isdecimal() and len(devices) < 10 else 0
    if count < 1:
        raise RecipeError(f"--devices expects a number or auto, got '{devices}'")
    return count


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keyword arguments; a test checks that they are the same."""

    resume: str
    overwrite: bool
    accept_data_change: bool
    device: str
    workers: int | None
    processes: bool
    eval_data: str | Path | None
    eval_every: int | None
    save_every: int | None
    wait_for_saves: bool
    keep: int
    keep_every: int | None
    on_nan: str
    on_collapse: str
    diagnose_every: int | None
    max_bad: float | None
    patience: float | None
    compare: bool
    log: str | Sequence[str]
    report: bool
    dry_run: bool
