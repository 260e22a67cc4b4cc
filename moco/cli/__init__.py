"""The command `moco`: parse, call, print. Results go to stdout, everything else to stderr."""

import os
from typing import Annotated

import typer

from moco import __version__
from moco.cli import ablate, check, evaluate, recipes, runs, train, weights
from moco.cli.streams import open_streams, run_and_flush, silence_pillow, spell_missing_characters

app = typer.Typer(
    name="moco",
    help="Momentum Contrast: from a pile of images to an evaluated encoder.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_evaluation = typer.Typer(
    no_args_is_help=True,
    cls=evaluate.OrAll,
    help="Evaluate an encoder on labelled images, beside baselines.\n\n"
    "`moco eval WEIGHTS DATA` makes all kinds; a command below makes one kind alone.",
)
_runs = typer.Typer(no_args_is_help=True, help="Look at runs.")


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Momentum Contrast: from a pile of images to an evaluated encoder."""
    if version:
        print(__version__)
        raise typer.Exit


app.command()(train.pretrain)
app.command()(check.check)
app.add_typer(_evaluation, name="eval")
_evaluation.command(evaluate.ALL)(evaluate.all_)
for _command in (evaluate.knn, evaluate.linear, evaluate.lowshot):
    _evaluation.command()(_command)
app.command()(weights.embed)
app.command()(weights.export)
app.command("import")(weights.import_)
app.command("weights")(weights.released)
app.add_typer(_runs, name="runs")
_runs.command()(runs.ls)
_runs.command()(runs.compare)
app.command()(recipes.recipes)
app.command()(recipes.explain)
app.command()(ablate.ablate)
app.command()(train.demo)


def main() -> None:
    """The entry point."""
    # threads of OpenMP that wait for work must not spin: beside other processes that took up to 70 times the CPU time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    spell_missing_characters()
    silence_pillow()
    run_and_flush(app)
