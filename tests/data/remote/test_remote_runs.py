"""A run on a web server's images: the same bits as on a disk, resumed after an outage, and without credentials."""

import gzip
import json
from pathlib import Path

import pytest

from moco.data.sources.images import DataError, StoreError
from moco.recipe import Recipe, RecipeError
from moco.train.after_step import Stopped
from moco.train.pretrain import pretrain
from tests.data.remote.servers import answer
from tests.train.helpers import StopAt, assert_same, final_state, losses


@pytest.fixture
def short(tiny) -> Recipe:
    """A recipe whose run on 24 pictures has 6 steps."""
    return tiny.but("short", {"method.size": 8})


@pytest.fixture
def uncached(monkeypatch) -> None:
    """Images are read in each epoch, as large ones are."""
    monkeypatch.setattr("moco.data.loader.cache.MAX_SIDE", 0)


def test_a_run_that_an_outage_has_ended_resumes_and_ends_with_the_bits_of_a_run_on_disk(
    photos, site, plan, short, tmp_path, impatient, uncached
):
    pretrain(photos, tmp_path / "whole", recipe=short, workers=0)
    asked = iter(range(10**6))
    plan.fault = lambda h: h.path.endswith(".png") and h.command == "GET" and next(asked) >= 30 and answer(h, 503)
    with pytest.raises(StoreError, match="the same command"):
        pretrain(f"{site}/photos", tmp_path / "run", recipe=short, workers=2, save_every=1)
    assert list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert not (tmp_path / "run" / "bad_images.csv").exists()
    plan.fault = None
    pretrain(f"{site}/photos", tmp_path / "run", recipe=short, workers=2, save_every=1)
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "run"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


def test_a_run_notices_that_an_image_has_changed(photos, site, plan, short, tmp_path):
    plan.etags = True
    with pytest.raises(Stopped, match="after step 2"):
        pretrain(f"{site}/photos", tmp_path / "run", recipe=short, reporter=StopAt(2))
    path = photos / "ä" / "0003.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # the same size
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"1 image was changed \(in size or time of change\): ä/0003.png"):
        pretrain(f"{site}/photos", tmp_path / "run", recipe=short)


def test_no_file_of_a_run_has_credentials(photos, site, short, tmp_path, monkeypatch):
    with_login = site.replace("://", "://me:topsecret@")
    names = [f"{folder}/{i:04d}.png" for folder in ("b%20c", "%C3%A4") for i in range(12)]
    (photos / "list.txt").write_text("".join(f"{with_login}/photos/{name}?sig=topsecret\n" for name in names))
    monkeypatch.setattr("sys.argv", ["moco", "pretrain", f"{with_login}/photos/list.txt?sig=topsecret", "--out", "run"])
    pretrain(f"{with_login}/photos/list.txt?sig=topsecret", tmp_path / "run", recipe=short)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if b"topsecret" in _content(path)] == []
    command = json.loads((tmp_path / "run" / "provenance.json").read_text())[0]["command"]
    assert command[2] == f"{site.replace('://', '://***@')}/photos/list.txt?..."


def _content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_results_are_not_written_to_a_url(photos, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"expected a path on this machine, got a URL \(s3:\)"):
        pretrain(photos, "s3://bucket/run", recipe=short)
    assert not Path("s3:").exists()
