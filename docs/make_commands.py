"""Writes the options of every command into docs/commands.md, from the command line itself. A hook of mkdocs."""

import re
from collections.abc import Iterator
from typing import Any

PLACE = "<!-- the commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return markdown.replace(PLACE, "\n".join(commands_page())) if PLACE in markdown else markdown


def commands_page() -> Iterator[str]:
    """A section for each command: what it does, and a table of its arguments and options."""
    for name, command in commands():
        yield f"## {name}\n\n{_text(command.help)}\n"
        yield "| argument or option | meaning |\n|---|---|"
        for parameter in command.params:
            if parameter.name != "help":
                meaning = _cell(getattr(parameter, "help", None)) + _default(parameter)
                yield f"| {_spelling(parameter)} | {meaning.strip()} |"
        yield ""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that runs something, with its full name, as `moco eval knn`."""
    from typer.main import get_command

    from moco.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for word, part in command.commands.items():
                yield from walk(f"{name} {word}", part)
        else:
            yield name, command

    return walk("moco", get_command(app))


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        many = "..." if parameter.nargs == -1 else ""
        return f"`{parameter.name.upper()}{many}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _default(parameter: Any) -> str:
    if parameter.required:
        return " Required."
    shown = parameter.default not in (None, False, ()) and not callable(parameter.default)
    return f" Default: `{getattr(parameter.default, 'value', parameter.default)}`." if shown else ""


def _cell(text: str | None) -> str:
    """As one cell of a table; square brackets around a default become a sentence."""
    text = re.sub(r"\s*\[default: (.*)\]", r" Default: \1.", text or "").strip()
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))
