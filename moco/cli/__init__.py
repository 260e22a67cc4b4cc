"""The command `moco`: parse, call, print. Results go to stdout, everything else to stderr."""

import os
from typing import Annotated

import typer

from moco import __version__
from moco.cli import (
    ablate,
    atlas,
    check,
    compare,
    diagnose,
    evaluate,
    pack,
    plan,
    recipes,
    report,
    runs,
    submit,
    train,
    transfer,
    views,
    weights,
)
from moco.cli.help import Command
from moco.cli.streams import open_streams, replace_missing_characters, run_and_flush, run_as_rank, silence_pillow

app = typer.Typer(
    name="moco",
    help="Pre-train an image encoder without labels by Momentum Contrast, and evaluate it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_evaluation = typer.Typer(
    no_args_is_help=True,
    cls=evaluate.OrAll,
    help="Evaluate an encoder on labelled images, beside baselines.\n\n"
    "`moco eval WEIGHTS DATA` runs all evaluations; each command below runs one.",
)
_runs = typer.Typer(no_args_is_help=True, help="List, show and compare runs.")


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Pre-train an image encoder without labels by Momentum Contrast, and evaluate it."""
    if version:
        print(__version__)
        raise typer.Exit


app.command(cls=Command)(train.pretrain)
app.command(cls=Command)(plan.plan)
app.command(cls=Command, context_settings={"allow_interspersed_args": False})(submit.submit)
app.command(cls=Command)(check.check)
app.command(cls=Command)(views.views)
app.command(cls=Command)(pack.pack)
app.command(cls=Command)(diagnose.diagnose)
app.command(cls=Command)(report.report)
app.add_typer(_evaluation, name="eval")
_evaluation.command(evaluate.ALL, cls=Command)(evaluate.all_)
for _command in (evaluate.knn, evaluate.linear, evaluate.lowshot):
    _evaluation.command(cls=Command)(_command)
app.command(cls=Command)(compare.compare)
app.command(cls=Command)(transfer.transfer)
app.command(cls=Command)(weights.embed)
app.command(cls=Command)(atlas.atlas)
app.command(cls=Command)(atlas.search)
app.command(cls=Command)(atlas.dedup)
app.command(cls=Command)(weights.export)
app.command("import", cls=Command)(weights.import_)
app.command("weights", cls=Command)(weights.list_released)
app.add_typer(_runs, name="runs")
_runs.command(cls=Command)(runs.ls)
_runs.command(cls=Command)(runs.show)
_runs.command("compare", cls=Command)(runs.compare_runs)
app.command(cls=Command)(recipes.recipes)
app.command(cls=Command)(recipes.explain)
app.command(cls=Command)(ablate.ablate)
app.command(cls=Command)(train.demo)


def main() -> None:
    """The entry point."""
    # OpenMP's waiting threads must sleep, not spin: beside other processes, spinning took up to 70 times the CPU time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    replace_missing_characters()
    silence_pillow()
    if "RANK" in os.environ:
        run_as_rank(app)
    run_and_flush(app)
