"""The layers of the package: what a file may import, read from its source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "moco"
LAYERS = [  # a part imports from the layers above its own in this list, not from its neighbours
    {"distributed", "files", "recipe_error", "rng", "schedule", "startup", "stop_signals", "text"},
    {"recipe_specs", "launch", "atomic_output"},
    {"recipe_base"},
    {"recipe"},
    {"method", "encoders", "data", "recipes", "device"},
    {"weights"},
    {"evaluate"},
    {"diagnose"},
    {"atlas"},
    {"comparison", "planning", "report"},
    {"train"},
    {"ablate", "curves_as_text", "demo", "explain", "runs", "transfer"},
    {"exporting", "loading"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}
WITHOUT_TORCH = {
    "explain",
    "recipe",
    "recipe_base",
    "recipe_error",
    "recipe_specs",
    "recipes",
    "rng",
    "schedule",
}  # not even inside of a function
QUICK_TO_START = {"__init__", "__main__", "cli", "files", "startup"}  # `moco --help` must not wait for torch
BRING_TORCH = {"torch", "torchvision", "timm"}


def part_of(path: Path, package: Path) -> str:
    """The name that a file's layer is listed under: its folder, or the file itself beside it."""
    first = path.relative_to(package).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, path: Path, package: Path) -> Iterator[str]:
    """Every module that is imported, dotted and absolute; of `from a import b`, both a and a.b."""
    here = ("moco", *path.relative_to(package).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def at_top_level(tree: ast.Module) -> ast.Module:
    """What runs when the module is imported: without the bodies of functions and of `if TYPE_CHECKING`."""

    class Drop(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef  # type: ignore[assignment]

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)

    return Drop().visit(ast.parse(ast.unparse(tree)))


def parts_used(names: list[str]) -> set[str]:
    """The parts of the package among the imported names. `moco` itself is there for its version only."""
    of_package = [name.split(".")[1] for name in names if name.startswith("moco.")]
    return {name for name in of_package if name != "__version__"}


def faults_of(path: Path, package: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    part, names = part_of(path, package), list(imports(tree, path, package))
    if part not in LEVEL:
        return ["belongs to no layer: add it to LAYERS"]
    faults: list[str] = []
    for other in sorted(parts_used(names) - {part}):
        if other not in LEVEL:
            faults.append(f"imports moco.{other}, which belongs to no layer")
        elif LEVEL[other] >= LEVEL[part]:
            faults.append(f"imports moco.{other}, which is not below it")
    eager = list(imports(at_top_level(tree), path, package))
    if part in WITHOUT_TORCH and {name.split(".")[0] for name in names} & BRING_TORCH:
        faults.append("imports torch")
    if part in QUICK_TO_START and {name.split(".")[0] for name in eager} & BRING_TORCH:
        faults.append("imports torch at its top level")
    if part == "method" and any(name.startswith("recipe") for name in parts_used(names)):
        faults.append("knows recipes")
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    named = {name for name in {*names, *attributes} if f"{name}.".startswith("torch.distributed.")}
    if part != "distributed" and named:
        faults.append("uses torch.distributed")
    return faults


def faults(package: Path) -> list[str]:
    """Every breach of the layers below `package`, as `file: what it does`."""
    files = sorted(package.rglob("*.py"))
    return [f"{path.relative_to(package)}: {fault}" for path in files for fault in faults_of(path, package)]


CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rooms(package: Path) -> set[str]:
    """Every file and folder of the package that a map must name: of `data`, the folders in it."""
    entries = {
        path.name + "/" if path.is_dir() else path.name for path in package.iterdir() if path.name[0] not in "_."
    }
    inner = {f"data/{path.name}/" for path in (package / "data").iterdir() if (path / "__init__.py").exists()}
    return (entries - {"data/"}) | inner


def test_the_map_of_contributing_names_every_part_of_the_tree_and_no_other():
    table = re.search(r"\| in `moco/` \|.*?\n\n", CONTRIBUTING, re.DOTALL)
    assert table is not None
    cells = [line.split("|")[1] for line in table[0].strip().splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} == rooms(PACKAGE)


def test_contributing_lists_the_layers_from_the_top_down():
    block = re.search(r"```\n(cli\n.*?)```", CONTRIBUTING, re.DOTALL)
    assert block is not None
    listed = [set(line.split(", ")) for line in block[1].splitlines()]
    assert listed == LAYERS[-2::-1]  # but for __init__ and __main__


def test_the_package_keeps_its_layers():
    assert sum(1 for _ in PACKAGE.rglob("*.py")) > 10
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("method/a.py", "from moco.data.sources.folder import Folder", "imports moco.data, which is not below it"),
        ("method/a.py", "from moco.recipe_error import RecipeError", "knows recipes"),
        ("schedule.py", "import moco.rng", "imports moco.rng, which is not below it"),
        ("data/a.py", "def f():\n    from moco.train import loop", "imports moco.train, which is not below it"),
        ("encoders/a.py", "from ..evaluate import knn", "imports moco.evaluate, which is not below it"),
        ("encoders/sub/a.py", "from ...report import page", "imports moco.report, which is not below it"),
        ("recipe.py", "from moco import recipes", "imports moco.recipes, which is not below it"),
        ("method/a.py", "from moco import pretrain", "imports moco.pretrain, which belongs to no layer"),
        ("novelty.py", "", "belongs to no layer: add it to LAYERS"),
        ("recipes/a.py", "def f():\n    import torch", "imports torch"),
        ("rng.py", "from torch import Tensor", "imports torch"),
        ("recipe.py", "import torchvision.models", "imports torch"),
        ("cli.py", "try:\n    import timm\nexcept ImportError:\n    pass", "imports torch at its top level"),
        ("cli.py", "class A:\n    from torch import nn", "imports torch at its top level"),
        ("method/a.py", "import torch.distributed as dist", "uses torch.distributed"),
        ("train/a.py", "from torch import distributed", "uses torch.distributed"),
        ("train/a.py", "from torch.distributed import all_gather", "uses torch.distributed"),
        ("train/a.py", "import torch\nprint(torch.distributed.is_available())", "uses torch.distributed"),
    ],
)
def test_a_planted_breach_is_found(tmp_path: Path, file: str, source: str, fault: str):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert faults(tmp_path) == [f"{file}: {fault}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("train/a.py", "import moco\nfrom moco.method import Contrast\nfrom moco.train.loop import train"),
        ("train/a.py", "from moco import __version__, recipes"),
        ("report/a.py", "from . import b\nfrom ..evaluate.knn import knn"),
        ("cli.py", "def command():\n    import torch\n    from moco.train.pretrain import pretrain"),
        ("cli.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("distributed.py", "import torch.distributed as dist"),
        ("__init__.py", "def __getattr__(name):\n    from moco.train.pretrain import pretrain"),
    ],
)
def test_allowed_imports_are_not_reported(tmp_path: Path, file: str, source: str):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert faults(tmp_path) == []
