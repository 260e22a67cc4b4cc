"""Every `--help` page, as a terminal of 80 columns shows it."""

import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from typer.main import get_command
from typer.models import OptionInfo
from typer.testing import CliRunner

from moco.cli import app


def commands(command: Any, *words: str) -> list[tuple[str, ...]]:
    """The words of each command and group of commands."""
    parts = getattr(command, "commands", {}).items()
    return [words, *(found for name, part in parts for found in commands(part, *words, name))]


ALL = commands(get_command(app))


def callbacks(group: Any) -> list[Callable[..., Any]]:
    """The functions of all commands."""
    inner = [one.typer_instance for one in group.registered_groups]
    return [*(one.callback for one in group.registered_commands), *(each for one in inner for each in callbacks(one))]


@pytest.mark.parametrize("function", callbacks(app), ids=lambda function: function.__qualname__)
def test_an_option_whose_metavar_is_its_name_names_itself(function):
    """typer 0.27 calls it by the metavar otherwise: --DEVICE."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        for one in getattr(hint, "__metadata__", ()):
            if isinstance(one, OptionInfo) and (one.metavar or "").lower() == name:
                assert str(one.default).startswith("--"), f"--{name} has no name of its own"  # the first argument


@pytest.fixture
def page(request, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, [*request.param, "--help"], prog_name="moco")
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("page", ALL, indirect=True, ids=" ".join)
def test_a_help_page_fits_80_columns_and_shows_no_python_types(page):
    assert max(map(len, page.splitlines())) <= 80
    assert not re.search(r"<[a-z]|\{|list\[|int range|float range|\bTEXT\.\.\.", page)


@pytest.mark.parametrize(
    ("page", "usage"),
    [
        (("pretrain",), "moco pretrain [OPTIONS] DATA..."),
        (("eval", "knn"), "moco eval knn [OPTIONS] WEIGHTS DATA..."),
        (("runs", "ls"), "moco runs ls [OPTIONS] [PATH]"),
        (("runs", "compare"), "moco runs compare [OPTIONS] RUN..."),
    ],
    indirect=["page"],
)
def test_the_usage_names_the_arguments_as_their_descriptions_do(page, usage):
    assert f"Usage: {usage}\n" in page
    for argument in usage.rpartition("[OPTIONS] ")[2].split():
        assert re.search(rf"^  {argument.strip('[].')} ", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["export", "run", "--to", "torchvison", "--out", "a.pt"], "'onnx'. Did you mean 'torchvision'?"),
        (["transfer", "detct"], "Did you mean 'detect'?"),
        (["pretrain", "a", "--out", "b", "--resume", "Never"], "Did you mean 'never'?"),
        (["export", "run", "--to", "xyz", "--out", "a.pt"], "'onnx'."),
    ],
)
def test_a_misspelt_choice_is_refused_with_the_similar_one(words, hint):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.output.rstrip().endswith(hint)
    assert "Value error" not in result.output
