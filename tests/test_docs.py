"""The documents say what is so: quoted lines, commands, options, Python names and paths exist."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from parse_command import parse

import moco

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| .* \| `([^|]+)` \| (moco/[\w/]+\.py) \|$", (ROOT / "docs/method.md").read_text(), re.MULTILINE)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "log.md"]  # the log tells of what was, also of what is gone
OTHER_PROGRAMS = {  # options that the documents name of torchrun, Slurm, pip and make's programs
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--rdzv-conf"),
    *("--max-restarts", "--shutdown-timeout", "--signals-to-handle", "--signal"),
    *("--master-addr", "--master-port", "--node-rank"),
    *("--constraint", "--only", "--quick", "--large", "--dry"),
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS: dict[str, Any] = dict(load(ROOT / "docs/make_commands.py").commands())
OPTIONS = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}


def blocks(*languages: str) -> Iterator[tuple[Path, str]]:
    """Every fenced block of these languages, with its page."""
    for page in PAGES:
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            if language in languages:
                yield page, text


def inline(pattern: str) -> list[str]:
    """What the first group of `pattern` finds in the pages' inline code, each once."""
    texts = (re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL) for page in PAGES)
    code = [" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text)]
    return sorted({found for span in code for found in re.findall(pattern, span)})


def shell_commands() -> list[list[str]]:
    """The arguments of every `moco ...` line in the pages' shell blocks, also behind torchrun's `-m`."""
    lines = [line for _, text in blocks("sh", "bash", "") for line in text.replace("\\\n", " ").splitlines()]
    found = [re.search(r"(?:^|-m )moco (.+)$", line.strip()) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that begins with `moco` in a program: imported, or used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "moco":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("moco."):
            yield ast.unparse(node)


def named(dotted: str) -> Any:
    """The object with this name: a module, or an attribute of one."""
    thing: Any = importlib.import_module("moco")
    for part in dotted.split(".")[1:]:
        if not hasattr(thing, part):
            importlib.import_module(f"{thing.__name__}.{part}")
        thing = getattr(thing, part)
    return thing


@contextmanager
def suppress_error(pattern: str) -> Iterator[None]:
    """Run a block that may fail with this message, of typer's exceptions or click's in older versions."""
    try:
        yield
    except Exception as error:
        if not re.search(pattern, f"{type(error).__name__}: {error}"):
            raise


def test_the_table_of_the_method_is_found():
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("line", "file"), ROWS)
def test_every_line_quoted_beside_the_paper_is_in_the_code(line, file):
    assert line in (ROOT / file).read_text()


def test_the_commands_of_the_documents_are_found():
    assert len(shell_commands()) >= 15
    assert ["recipes"] in shell_commands()


@pytest.mark.parametrize("arguments", shell_commands(), ids=" ".join)
def test_every_command_in_the_documents_parses(arguments):
    parse(arguments)


@pytest.mark.parametrize("arguments", [["pretrain", "--out", "run"], ["eval", "knn", "run", "data", "--kk", "3"]])
def test_a_command_with_a_fault_does_not_parse(arguments):
    with pytest.raises(Exception, match=r"[Mm]issing|[Nn]o such option"):
        parse(arguments)


@pytest.mark.parametrize("words", inline(r"^moco ([a-z].*)$"))
def test_every_command_named_in_a_sentence_exists(words):
    first, *rest = [word for word in shlex.split(words) if word[0] != "-"]
    group = [name for name in COMMANDS if name.split()[1] == first]
    assert group, f"moco {first}"
    assert "runs" not in first or not rest or f"moco runs {rest[0]}" in COMMANDS


@pytest.mark.parametrize("words", inline(r"^moco ([a-z].*)$"))
def test_a_command_in_a_sentence_parses_but_for_what_it_leaves_out(words):
    left_out = r"(?i)missing|no ?args|usage:|requires an argument|'(FORMAT|NAME|KIND)' is not one of"
    with suppress_error(left_out):
        parse(shlex.split(words))


@pytest.mark.parametrize("option", inline(r"(?:^| )(--[a-z][\w-]*)"))
def test_every_option_named_in_a_sentence_exists(option):
    assert option in OPTIONS | OTHER_PROGRAMS | {"--help", "--version", "--install-completion"}


def test_every_option_is_on_the_page_of_commands():
    maker = load(ROOT / "docs/make_commands.py")
    page = maker.on_page_markdown((ROOT / "docs/commands.md").read_text())
    assert "docs/make_commands.py" in (ROOT / "mkdocs.yml").read_text()
    for name, command in COMMANDS.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        spelled = [p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in command.params]
        assert all(f"| `{word}" in section for word in spelled), name


def test_every_extra_is_on_the_page_of_troubleshooting():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = re.findall(r"^\| (`\w+`.*?) \| ", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(project["optional-dependencies"])


def test_no_page_installs_the_package_by_name():
    """It is not on a package index: `pip install ".[extra]"` in a clone of the repository."""
    installs = [line for page in PAGES for line in page.read_text().splitlines() if "pip install" in line]
    assert len(installs) > 10
    assert [line for line in installs if "momentum-contrast" in line] == []


def test_every_option_has_a_help_text():
    silent = [
        f"{name} {parameter.name}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if not re.sub(r"\[default: .*\]", "", getattr(parameter, "help", "") or "").strip()
    ]
    assert not silent


@pytest.mark.parametrize(("page", "code"), list(blocks("python")), ids=lambda part: getattr(part, "name", "code"))
def test_every_python_example_compiles_and_its_names_exist(page, code):
    tree = ast.parse(code)
    compile(tree, str(page), "exec")
    for name in names(tree):
        named(name)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("moco."):
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(named(ast.unparse(call.func))).bind_partial(*call.args, **keywords)


@pytest.mark.parametrize("name", inline(r"^(moco(?:\.\w+)+)"))
def test_every_python_name_in_a_sentence_exists(name):
    assert name.removeprefix("moco.") in moco.__all__ or named(name)


@pytest.mark.parametrize("path", inline(r"(?:^|[ `])((?:moco|tests|docs|examples|benchmarks)/[\w/.*-]*)"))
def test_every_path_named_exists(path):
    assert list(ROOT.glob(path.rstrip("/.")))
