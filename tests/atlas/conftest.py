"""Runs, pictures, and servers of their map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_pictures import make_pictures

from moco.atlas import layout as layout_module
from moco.atlas.serve import make_server
from moco.atlas.server import Server
from tests.atlas.http_client import make_run, running

HERE: dict[str, Any] = {"device": "cpu", "workers": 0}


@pytest.fixture
def without_pacmap(monkeypatch):
    monkeypatch.setattr(layout_module, "_import_pacmap", lambda: None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 12, classes=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of all tests that change nothing."""
    folder = tmp_path_factory.mktemp("served")
    yield from running(make_server(make_run(folder), make_pictures(folder / "photos", 12, classes=3), **HERE))


@pytest.fixture
def own_server(run: Path, photos: Path) -> Iterator[Server]:
    yield from running(make_server(run, photos, **HERE))
