"""Wheel and sdist: they build, hold what they must, and work where they are installed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import moco

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An sdist of this folder, and a wheel built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, away from the source. What it depends on is there already."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    run(*pip, str(built[1]), cwd=target)
    return target


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_and_sdist_are_named_after_the_version(built: tuple[Path, Path]):
    sdist, wheel = built
    assert sdist.name == f"momentum_contrast-{moco.__version__}.tar.gz"
    assert wheel.name == f"momentum_contrast-{moco.__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: tuple[Path, Path]):
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "moco").rglob("*") if path.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == source
    assert {"moco/data/demo/NOTICE", "moco/data/demo/fashion-mnist-placed.zip"} <= names


def test_the_wheel_holds_the_licences(built: tuple[Path, Path]):
    with zipfile.ZipFile(built[1]) as wheel:
        about = f"momentum_contrast-{moco.__version__}.dist-info"
        assert wheel.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert wheel.read(f"{about}/licenses/moco/data/demo/NOTICE") == (ROOT / "moco/data/demo/NOTICE").read_bytes()
        assert "License-Expression: Apache-2.0" in wheel.read(f"{about}/METADATA").decode()


def test_the_sdist_contains_all_that_building_and_testing_need(built: tuple[Path, Path]):
    with tarfile.open(built[0]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "tests/test_build.py"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "runs/", "dist/"))]


def test_the_installed_package_is_imported_and_not_the_source(installed: Path, tmp_path: Path):
    where = run(sys.executable, "-c", "import moco; print(moco.__file__)", cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(where.strip()) == installed / "moco" / "__init__.py"


def test_the_installed_command_answers(installed: Path, tmp_path: Path):
    for command in ([str(installed / "bin" / "moco")], [sys.executable, "-m", "moco"]):
        assert "pretrain" in run(*command, "--help", cwd=tmp_path, PYTHONPATH=str(installed))


def test_the_installed_package_unpacks_the_demo_images(installed: Path, tmp_path: Path):
    probe = "from moco.data.sources.demo import demo_data; print(sum(1 for _ in demo_data().rglob('*.png')))"
    count = run(sys.executable, "-c", probe, cwd=tmp_path, PYTHONPATH=str(installed), XDG_CACHE_HOME=str(tmp_path))
    assert int(count) == 14_000
