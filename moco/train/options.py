"""How a run is carried out: what is not in its recipe. The same options in Python and on the command line."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from moco.recipe_error import RecipeError

RESUME = ("auto", "never", "must")


@dataclass(frozen=True)
class RunOptions:
    """Where a run works, when it scores and saves, and what it tolerates. None of it changes a result.

    Attributes:
        resume: "auto" continues the run that is in the folder; "never" refuses one; "must" demands one.
        overwrite: remove the run that is in the folder first.
        accept_data_change: continue though images were added, removed or changed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: threads that read images, or processes; None: one a core, at most 8.
        processes: the workers are processes, for many cores beside a fast GPU.
        eval_data: labelled images for a kNN score during training, every `eval_every` epochs.
        save_every: steps between checkpoints; None: a minute.
        keep: the newest checkpoints that stay, and besides one every `keep_every` steps.
        on_nan: what happens at a step whose loss, keys or gradient are not finite, and which changes nothing: "stop"
            the run, or "skip:N": skip up to N such steps.
        max_bad: how many unreadable images are too many (below 1: a share); None: 0.1 %, at least 10.
        patience: minutes that a step or a checkpoint may take (setting up, or a score, four times that) before the
            process ends itself, with the stack of every thread; None or 0: for ever (the command's default is 30).
        dry_run: show the plan and stop.

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
    keep: int = 3
    keep_every: int | None = None
    on_nan: str = "stop"
    max_bad: float | None = None
    patience: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.resume not in RESUME:
            raise RecipeError(f"resume expects {', '.join(RESUME[:-1])} or {RESUME[-1]}, got {self.resume!r}")
        for name in ("overwrite", "accept_data_change", "processes", "dry_run"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(f"{name} expects True or False, got {getattr(self, name)!r}")
        for name in ("eval_every", "save_every", "keep", "keep_every"):
            value = getattr(self, name)
            if (value is not None or name == "keep") and (not isinstance(value, int) or value < 1):
                raise RecipeError(f"{name} expects a whole number of at least 1, got {value!r}")
        if self.patience is not None and not self.patience >= 0:
            raise RecipeError(f"patience expects 0 or more minutes, or None, got {self.patience!r}")

    def restarted(self) -> "RunOptions":
        """The options of a process that torchrun has started again after a failure: it means to continue."""
        return replace(self, overwrite=False, resume="auto")


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keyword arguments. A test holds the two equal."""

    resume: str
    overwrite: bool
    accept_data_change: bool
    device: str
    workers: int | None
    processes: bool
    eval_data: str | Path | None
    eval_every: int | None
    save_every: int | None
    keep: int
    keep_every: int | None
    on_nan: str
    max_bad: float | None
    patience: float | None
    dry_run: bool
