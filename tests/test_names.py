"""One name, one meaning: read from the source of the package."""

import ast
import functools
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMAND = "a command, and the function that does its work"
KERNEL = "a compiled kernel, and the same computation by Pillow and torch"
READER = "the interface of readers: one module for each format"
IN_SEVERAL_MODULES = {  # public functions, with the reason for their name in each of them
    **dict.fromkeys(["ablate", "check", "dedup", "explain", "knn", "lowshot", "pack", "plan"], COMMAND),
    **dict.fromkeys(["pretrain", "search", "transfer"], COMMAND),
    "compare": f"{COMMAND}; moco.method.compare is public: Eqn. (1), which compares queries with keys",
    "demo": f"{COMMAND}; a recipe's function has the recipe's name",
    "export": f"{COMMAND}; of encoders, and of any result",
    **dict.fromkeys(["crop", "crop_part", "eval_crop", "normalize", "write_views"], KERNEL),
    **dict.fromkeys(["read", "recognises"], READER),
}
PRIVATE_ENGLISH = {  # words that only their author understands as the name of a file
    *("ahead", "aside", "begun", "borne", "bounds", "cast", "counterpart", "dealt", "dice", "done", "found", "gate"),
    *("hang", "kept", "lasting", "look", "looks", "quarantine", "ring", "shown", "taken", "trade", "twin", "twins"),
}


@functools.cache
def texts(package: Path) -> dict[str, str]:
    """The source of each file of a package, by its path in it."""
    return {str(path.relative_to(package)): path.read_text() for path in sorted(package.rglob("*.py"))}


def trees(package: Path, pattern: str) -> dict[str, ast.Module]:
    """The parsed files that a regular expression is found in. To parse all takes two seconds."""
    found = re.compile(pattern, re.MULTILINE)
    return {file: ast.parse(text) for file, text in texts(package).items() if found.search(text)}


def repeated(package: Path, definition: str) -> str:
    """A regular expression for the definitions whose name occurs more than once in the text of the package."""
    names = Counter(name for text in texts(package).values() for name in re.findall(definition, text, re.MULTILINE))
    some = "|".join(name for name, count in names.items() if count > 1)
    return definition.replace(r"(\w+)", f"(?:{some})\\b") if some else "(?!)"


def twice(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: files for name, files in places.items() if len(files) > 1}


def classes_defined_twice(package: Path) -> dict[str, list[str]]:
    """Class names, also private and nested ones, that are defined more than once, with the files."""
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees(package, repeated(package, r"^\s*class (\w+)")).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(file)
    return twice(places)


def functions_in_several_modules(package: Path) -> dict[str, list[str]]:
    """Public functions at the top level of more than one file, with the files."""
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees(package, repeated(package, r"^def (\w+)")).items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].append(file)
    return twice(places)


def private_english(folder: Path) -> list[str]:
    """Python files with a word of PRIVATE_ENGLISH in their name."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.py"))]
    return [path.as_posix() for path in paths if {*path.stem.split("_")} & PRIVATE_ENGLISH]


def test_every_class_name_is_defined_once():
    assert classes_defined_twice(ROOT / "moco") == {}


def test_a_public_function_in_two_modules_has_a_reason():
    assert functions_in_several_modules(ROOT / "moco").keys() == IN_SEVERAL_MODULES.keys()


@pytest.mark.parametrize("folder", ["moco", "tests", "benchmarks", "examples"])
def test_no_file_is_named_in_private_english(folder):
    assert private_english(ROOT / folder) == []


def test_planted_faults_are_found(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "a.py").write_text("class Batch:\n    pass\n\ndef load():\n    pass\n")
    (tmp_path / "data/kept_files.py").write_text("def load():\n    class Batch:\n        pass\n")
    assert classes_defined_twice(tmp_path) == {"Batch": ["a.py", "data/kept_files.py"]}
    assert functions_in_several_modules(tmp_path) == {"load": ["a.py", "data/kept_files.py"]}
    assert private_english(tmp_path) == ["data/kept_files.py"]


def imports_of_test_modules(folder: Path) -> list[str]:
    """Files that import from a test module, whose helpers belong in a module of their own."""
    line = re.compile(r"^\s*(?:from|import) .*\btest_\w+", re.MULTILINE)
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.py")) if line.search(path.read_text())]


def test_no_test_imports_from_another_test():
    assert imports_of_test_modules(ROOT / "tests") == []


def test_a_planted_import_from_a_test_is_found(tmp_path):
    for number, line in enumerate(["from tests.test_a import f", "from tests import test_a", "import tests.test_a"]):
        (tmp_path / f"test_{number}.py").write_text(line)
    assert imports_of_test_modules(tmp_path) == ["test_0.py", "test_1.py", "test_2.py"]


CLEVER = {"locals", "getrefcount", "cache_info"}  # calls whose purpose a reader has to guess


def clever_places(package: Path) -> list[str]:
    """Calls in CLEVER, a text times something that is no number of times, and a search in the text of an error."""
    found = []
    for file, tree in trees(package, r"locals|getrefcount|cache_info|str\(error\)|[\"'] \*|\* f?[\"']").items():
        for node in ast.walk(tree):
            call = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in CLEVER
            product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
            texts = [one for one in (node.left, node.right) if is_text(one)] if product else []
            counts = [one for one in (node.left, node.right) if is_count(one)] if product else []
            asked = isinstance(node, ast.Compare) and any(isinstance(one, ast.In | ast.NotIn) for one in node.ops)
            error = asked and any(ast.unparse(one) == "str(error)" for one in node.comparators)
            if call or error or (texts and not counts):
                found.append(f"{file}: {ast.unparse(node)}")
    return found


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def is_count(node: ast.expr) -> bool:
    """A number, a length, or a sum or product with one of these."""
    if isinstance(node, ast.BinOp):
        return is_count(node.left) or is_count(node.right)
    number = isinstance(node, ast.Constant) and isinstance(node.value, int)
    return number or (isinstance(node, ast.Call) and ast.unparse(node.func) == "len")


def calls_of(name: str, package: Path) -> list[str]:
    """The files that call a function."""
    return [
        file for file, tree in trees(package, name).items() for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
    ]  # fmt: skip


def test_no_place_is_over_clever():
    assert clever_places(ROOT / "moco") == []


@pytest.mark.parametrize(
    "code", ["f(**locals())", "sys.getrefcount(x)", "f.cache_info().hits", '"s" * (n != 1)', 'x = "a" in str(error)']
)
def test_a_planted_clever_place_is_found(code, tmp_path):
    (tmp_path / "a.py").write_text(code)
    assert len(clever_places(tmp_path)) == 1


def test_one_function_turns_data_of_any_kind_into_images():
    assert calls_of("find_images", ROOT / "moco") == ["data/sources/open.py"]
