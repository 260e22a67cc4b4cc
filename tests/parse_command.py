"""Parse a command line of moco without running it."""

from typer.main import get_command

from moco.cli import app


def parse(arguments: list[str]) -> None:
    """As the command line does, without running the command."""
    command, name = get_command(app), "moco"
    context = command.make_context(name, list(arguments))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
