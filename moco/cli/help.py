"""Help pages that name an argument as `DATA`, where typer shows `{DATA}` and `DATA <list[str]>`; hints at typos."""

import difflib
import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from moco.files import is_url_path, local_only


class Command(TyperCommand):
    """A command with such a help page, the same with every version of typer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            message = error.message.removeprefix("Value error, ")
            error.message = message + _hint(message)
            raise
        for one in list[Any](self.get_params(ctx)):
            if isinstance(value := ctx.params.get(one.name), Path) and is_url_path(value):
                raise typer.BadParameter(local_only(value), ctx, one)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        records = [(one.param_type_name, one.get_help_record(ctx)) for one in parameters]
        arguments = [
            (record[0].partition(" <")[0], record[1]) for kind, record in records if record and kind == "argument"
        ]
        options = [record for kind, record in records if record and kind == "option"]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _hint(message: str) -> str:
    """What the user may have meant, for a message `'a' is not one of 'b', 'c'`; otherwise nothing."""
    value, found, choices = message.partition(" is not one of ")
    given, known = re.findall("'([^']*)'", value), re.findall("'([^']*)'", choices)
    near = difflib.get_close_matches(given[-1].lower(), known, n=1) if found and given else []
    return f" Did you mean '{near[0]}'?" if near else ""


def _usage(argument: Any) -> str:
    """`DATA`; `[DATA]` where it may be left out; `DATA...` where there may be several."""
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name if argument.nargs == 1 else f"{name}..."
