"""The package as it is published: one version, short files, a quick start, nothing of the machine it was made on."""

import ast
import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from sample_pictures import make_pictures

import moco

ROOT = Path(__file__).parent.parent
HOME_OF_A_BUILD = re.compile(r"(?<![\w.~-])/(?:home|root|work|opt)/")  # an absolute path of one machine
LONGEST_FILE = 300  # lines
LONGEST_FUNCTION = 50  # lines, with signature and docstring
IN_ONE_FILE = {"moco/data/augment/kernels.py"}  # numba's cache of what is compiled looks at the age of one file
LONGER = {"moco/train/pretrain.py pretrain": 60}  # longest: its signature and docstring are the API reference


def published() -> list[Path]:
    """The files that are in the repository or about to be: neither ignored nor git's own."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:  # an unpacked sdist: no repository to ask
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        return [ROOT / name for name in names if not name.parts[0].startswith(".") and name.parts[0] != "runs"]
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """What a text file says; None of a picture or an archive."""
    content = path.read_bytes()
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def python(*arguments: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pyproject_takes_the_version_from_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "moco/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", moco.__version__)


def requirements() -> dict[str, Requirement]:
    """What the package, its tests and their extras need, by name. The benchmarks' peers have versions of their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name != "bench"]
    every = [Requirement(line) for line in itertools.chain(project["dependencies"], *extras)]
    return {canonicalize_name(one.name): one for one in every if one.name != "momentum-contrast"}


def pinned(file: str) -> dict[str, str]:
    """Name and version of each line of a file of constraints."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): version for name, version in pairs}


def test_no_dependency_has_an_upper_bound():
    bounds = {name: [part.operator for part in one.specifier] for name, one in requirements().items()}
    assert len(bounds) > 20
    assert {name: parts for name, parts in bounds.items() if parts != [">="]} == {}


def test_every_dependency_has_a_version_for_ci_which_its_bound_allows():
    versions = pinned("constraints.txt")
    missing = {name for name, one in requirements().items() if not one.specifier.contains(versions.get(name, "0"))}
    assert missing == set()


def test_the_oldest_versions_are_the_lower_bounds():
    bounds = {name: next(iter(one.specifier)).version for name, one in requirements().items()}
    oldest = pinned("constraints-oldest.txt")
    same = {name: Version(bounds[name]) == Version(version) for name, version in oldest.items() if name in bounds}
    assert {name for name, equal in same.items() if not equal} == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [*project["optional-dependencies"]["data"], *project["optional-dependencies"]["export"]]
    needed = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]}
    assert needed <= oldest.keys()


def test_the_installed_version_is_the_one_of_the_source():
    try:
        installed = importlib.metadata.version("momentum-contrast")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, but run from its source folder")
    assert installed == moco.__version__


def test_the_citation_file_has_the_version():
    assert f"\nversion: {moco.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_newest_entry_of_the_changelog_is_the_version():
    entries = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == moco.__version__


def test_the_licence_is_apache_2_in_full():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def long_files(root: Path) -> set[str]:
    """Python files of the package and its tests with more than LONGEST_FILE lines."""
    files = [path for folder in ("moco", "tests") for path in (root / folder).rglob("*.py")]
    return {str(path.relative_to(root)) for path in files if len(path.read_text().splitlines()) > LONGEST_FILE}


def long_functions(root: Path) -> dict[str, int]:
    """Functions of the package with more lines than they may have, with their lengths."""
    lengths: dict[str, int] = {}
    for path in sorted((root / "moco").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name, lines = f"{path.relative_to(root)} {node.name}", (node.end_lineno or 0) - node.lineno + 1
                lengths[name] = max(lines, lengths.get(name, 0))  # several methods may have one name
    return {name: lines for name, lines in lengths.items() if lines > LONGER.get(name, LONGEST_FUNCTION)}


def test_no_file_of_the_package_or_its_tests_is_long():
    assert long_files(ROOT) == IN_ONE_FILE


def test_no_function_of_the_package_is_long():
    assert long_functions(ROOT) == {}


def test_a_planted_long_file_and_function_are_found(tmp_path):
    (tmp_path / "moco").mkdir()
    short, long = "def f():\n" + "    x = 1\n" * 49, "def f():\n" + "    x = 1\n" * 50
    (tmp_path / "moco/a.py").write_text(long + short + short.replace("f()", "g()"))
    (tmp_path / "moco/b.py").write_text("x = 1\n" * 301)
    (tmp_path / "moco/c.py").write_text("x = 1\n" * 300)
    assert long_functions(tmp_path) == {"moco/a.py f": 51}
    assert long_files(tmp_path) == {"moco/b.py"}


def test_no_text_names_a_path_of_one_machine():
    files = published()
    assert len(files) > 20
    found = {str(path.relative_to(ROOT)) for path in files if HOME_OF_A_BUILD.search(text_of(path) or "")}
    assert found <= {"tests/test_package.py"}  # the examples below


@pytest.mark.parametrize("line", ["see /home/me/x", "run=/home/me/.cache/a", "`/home/me/venv/bin/python`"])
def test_a_planted_path_of_one_machine_is_found(line: str):
    assert HOME_OF_A_BUILD.search(line)


@pytest.mark.parametrize(
    "line", ["at/home/me", "https://example.org/home/1", "~/home/photos", "./home/x", "somewhere/home/"]
)
def test_other_paths_are_let_through(line: str):
    assert not HOME_OF_A_BUILD.search(line)


@pytest.mark.parametrize("module", ["moco", "moco.recipe", "moco.recipes", "moco.schedule", "moco.rng", "moco.files"])
def test_modules_with_numbers_and_names_import_no_torch(module: str):
    assert python("-c", f"import sys, {module}; print('torch' in sys.modules)").strip() == "False"


def test_help_answers_without_torch():
    probe = (
        "import runpy, sys\n"
        "sys.argv = ['moco', '--help']\n"
        "try:\n    runpy.run_module('moco', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    said = python("-c", probe)
    assert "pretrain" in said
    assert said.splitlines()[-1] == "False"


def test_steps_of_an_own_network_import_neither_torchs_compiler_nor_the_libraries_of_networks(tmp_path):
    """Each of them takes about a second."""
    make_pictures(tmp_path / "data", 24)
    probe = (
        "import sys, moco\n"
        "from moco.train.reporters import Silent\n"
        "class AtEachStep(Silent):\n"
        "    def live(self, *parts):\n"
        "        print(sorted({'torch._dynamo', 'torchvision', 'timm', 'sympy', 'matplotlib'} & set(sys.modules)))\n"
        f"moco.pretrain({str(tmp_path / 'data')!r}, {str(tmp_path / 'run')!r}, recipe='demo', device='cpu', workers=0, "
        "epochs=1, settings={'optim.batch_size': 8, 'method.size': 8}, reporter=AtEachStep())"
    )
    assert python("-c", probe).split() == ["[]"] * 3  # steps; pictures are drawn, by matplotlib, at the end


def in_wheel() -> set[str]:
    """The files that a wheel would have, by the build backend itself."""
    builders = pytest.importorskip("hatchling.builders.wheel")
    return {file.distribution_path for file in builders.WheelBuilder(str(ROOT)).recurse_included_files()}


def test_the_wheel_has_every_file_of_the_package():
    names = {str(path.relative_to(ROOT)) for path in published() if path.is_relative_to(ROOT / "moco")}
    templates = {name for name in names if "/templates/" in name}
    assert {Path(name).suffix for name in templates} == {".html", ".css", ".js"}
    assert names - in_wheel() == set()


def test_dir_lists_the_public_names_of_the_package():
    assert {name for name in dir(moco) if not name.startswith("_")} == set(moco.__all__) - {"__version__"}
    assert all(hasattr(moco, name) for name in dir(moco))
