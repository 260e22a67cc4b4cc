"""Measure the probe set during training, and derive a verdict. Rank 0 measures; training does not change."""

from dataclasses import dataclass
from typing import Any

import torch

from moco.diagnose.history import PROBE_KEY, measure_waiting_share, measurements
from moco.diagnose.measure import bn_group_size, measure_signals, update_size
from moco.diagnose.plan import MOST, ProbePlan, plan_probe
from moco.diagnose.probe import ProbeSet, make_probe
from moco.diagnose.verdicts import Diagnosis, Evidence, judge_evidence
from moco.distributed import on_main, world_size
from moco.method import Contrast
from moco.recipe import Recipe
from moco.train.build import precision_of
from moco.train.checkpoint import Clock, TrainState
from moco.train.plan_run import PretrainJob
from moco.train.reporters import Reporter
from moco.train.run_folder import RunFolder


class Collapsed(RuntimeError):
    """The embeddings of all images are nearly the same, and the run was asked to stop then."""


@dataclass
class LiveDiagnosis:
    """Measures when due. All that a verdict depends on is in metrics.jsonl, so a resumed run gives the same."""

    plan: ProbePlan
    probe: ProbeSet | None  # on rank 0
    run: RunFolder
    recipe: Recipe
    device: torch.device
    on_collapse: str
    reporter: Reporter
    word: str = ""  # for the live line
    reported: str = ""  # the last fault that was reported

    def is_due(self, clock: Clock) -> bool:
        return clock.step % self.plan.every == 0 or clock.step == clock.total_steps

    def measure(self, state: TrainState, unwritten: list[dict[str, Any]]) -> dict[str, Any]:
        """The entries of the record of this step: the signals, and the word of the verdict. Called on rank 0.

        Args:
            unwritten: records that are not in metrics.jsonl yet.
        """
        assert isinstance(state.model, Contrast)
        assert isinstance(state.optimizer, torch.optim.Optimizer)
        assert self.probe is not None
        now = measure_signals(
            state.model, self.probe, batch=self.recipe.optim.batch_size,
            group=bn_group_size(self.recipe, world_size()), update=update_size(state.optimizer),
            precision=precision_of(self.recipe, self.device),
        )  # fmt: skip
        clock, signals = state.clock, now.to_dict()
        records = [*self.run.metrics(), *unwritten]
        measured = measurements([*records, {"step": clock.step, PROBE_KEY: signals}])
        found = judge_evidence(Evidence(measured, clock.total_steps))
        shown = judge_evidence(Evidence(measured, clock.total_steps, measure_waiting_share(records)))
        self._report(shown)
        return {PROBE_KEY: signals, "verdict": found.word, "collapsed": found.collapsed}

    def _report(self, found: Diagnosis) -> None:
        verdict, self.word = found.classification, found.word
        if verdict.fault and verdict.word != self.reported:
            self.reporter.say(f"caution: {verdict}")
        self.reported = verdict.word if verdict.fault else ""

    def stops(self, unwritten: list[dict[str, Any]]) -> bool:
        """Whether the last two measurements were of a collapse, and the run must stop then. Called on rank 0."""
        if self.on_collapse != "stop":
            return False
        flags = [
            one["collapsed"] for one in [*self.run.metrics(), *unwritten] if one.get("step") and "collapsed" in one
        ]
        return len(flags) > 1 and all(flags[-2:])


def collapse_message(step: int, run: RunFolder) -> str:
    return (
        f"stopped after step {step}: the embeddings have collapsed in two measurements, and --on-collapse is stop. The "
        f"state is saved. For the numbers: moco diagnose {run.path}. The same command with --on-collapse warn continues"
    )


def live_diagnosis(job: PretrainJob, reporter: Reporter, *, log_every: int) -> LiveDiagnosis | None:
    """The diagnosis of a run; None if it is too short, or with --diagnose-every 0. Every rank calls it.

    Raises:
        DataError: no image can be read.
    """
    options, recipe = job.options, job.recipe
    plan = plan_probe(
        len(job.images), batch=recipe.optim.batch_size, steps=job.clock.total_steps, log_every=log_every
    )  # fmt: skip
    if options.diagnose_every is not None:
        plan = ProbePlan(min(MOST, len(job.images)), options.diagnose_every) if options.diagnose_every else None
    if plan is None:
        return None
    probe = None
    if on_main():
        probe = make_probe(
            job.images, recipe.data, count=plan.images, device=job.place, workers=job.workers,
            processes=options.processes,
        )  # fmt: skip
    return LiveDiagnosis(plan, probe, job.run, recipe, job.place, options.on_collapse, reporter)
