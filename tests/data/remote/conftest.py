"""A folder of images that is also served by a web server on this machine, and a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_pictures import make_pictures

from tests.data.remote.servers import Plan, web_server


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("MOCO_REMOTE_CACHE", "MOCO_REMOTE_CACHE_SIZE", "MOCO_REMOTE_PATIENCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two folders with 24 pictures in all."""
    make_pictures(tmp_path / "site" / "photos" / "b c", 12)
    make_pictures(tmp_path / "site" / "photos" / "ä", 12)
    return tmp_path / "site" / "photos"


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
def site(photos, plan) -> Iterator[str]:
    """The URL of the folder `photos` lies in."""
    with web_server(photos.parent, plan) as url:
        yield url


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Reads are repeated a few times, without waiting long."""
    monkeypatch.setenv("MOCO_REMOTE_PATIENCE", "0")
    monkeypatch.setattr("moco.data.remote.retry.FIRST", 0.01)
