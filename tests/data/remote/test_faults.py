"""Servers that fail for a while, that lose an image, and that are away."""

import shutil
import threading
import time

import numpy as np
import pytest

from moco.data.loader.bad_images import Quarantine
from moco.data.remote.retry import retry
from moco.data.sources.images import DataError, StoreError
from moco.data.sources.open import open_images
from tests.data.loader.loading import loader, no_limit, same
from tests.data.remote.servers import Handler, answer, cut_short, reset, times


@pytest.mark.parametrize(
    "fault",
    [lambda h: answer(h, 500), lambda h: answer(h, 503), lambda h: answer(h, 429), cut_short, reset],
    ids=["500", "503", "429", "cut short", "reset"],
)
def test_a_read_that_fails_twice_is_repeated(photos, site, plan, fault, impatient):
    images, local = open_images(f"{site}/photos"), open_images(photos)
    plan.fault = times(fault, 2)
    assert all(np.array_equal(images.read(i), local.read(i)) for i in range(4))
    assert [times for path, times in plan.asked.items() if path.startswith("GET") and path.endswith(".png")] == [3] * 4


def test_an_answer_that_does_not_come_is_asked_for_again(photos, site, plan, impatient, monkeypatch):
    monkeypatch.setattr("moco.data.remote.store.READ", 0.3)
    images, local = open_images(f"{site}/photos"), open_images(photos)

    def silent(handler: Handler) -> bool:
        time.sleep(1.5)
        return reset(handler)

    plan.fault = times(silent, 1)
    assert np.array_equal(images.read(0), local.read(0))


def test_a_look_up_that_fails_is_repeated(photos, site, plan, impatient):
    plan.fault = times(lambda h: answer(h, 502), 2, method="HEAD")
    assert open_images(f"{site}/photos").sizes.tolist() == open_images(photos).sizes.tolist()


def test_mini_batches_of_a_failing_server_are_the_same(photos, site, plan, impatient):
    images, counts = open_images(f"{site}/photos"), iter(range(10**6))
    plan.fault = lambda h: h.path.endswith(".png") and next(counts) % 5 == 0 and [reset, cut_short][next(counts) % 2](h)
    assert same(list(loader(images, workers=3)), list(loader(open_images(photos))))


def test_a_missing_image_is_a_bad_image_and_replaced_as_on_disk(photos, site, tmp_path):
    images, local = open_images(f"{site}/photos"), open_images(photos)
    (photos / "ä" / "0005.png").unlink()
    quarantine, here = no_limit(images, tmp_path / "bad.csv"), no_limit(local)
    made = list(loader(images, workers=2, quarantine=quarantine))
    assert same(made, list(loader(local, quarantine=here)))
    assert quarantine.bad == {"ä/0005.png": "not in the store any more, or never was"}
    assert list(here.bad) == list(quarantine.bad)


def test_an_image_of_another_size_than_before_is_a_bad_image(photos, site, impatient):
    images = open_images(f"{site}/photos")
    size = (photos / images.names[3]).stat().st_size
    (photos / images.names[3]).write_bytes(b"other")
    quarantine = no_limit(images)
    list(loader(images, quarantine=quarantine))
    assert quarantine.bad == {
        images.names[3]: f"has 5 bytes now; {size} when it was listed"
    }.copy() or quarantine.bad == {images.names[3]: f"has 5 bytes now; {size:,} when it was listed"}


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_an_outage_ends_the_run_and_no_image_is_called_bad(photos, site, plan, impatient, processes):
    images = open_images(f"{site}/photos")
    plan.fault = lambda handler: answer(handler, 503)
    quarantine = no_limit(images)
    with pytest.raises(StoreError, match=r"cannot be read: \d+ tries in .*HTTP 503.*a run resumes from its last"):
        list(loader(images, workers=2, processes=processes, quarantine=quarantine))
    assert quarantine.bad == {}


def test_a_server_that_is_gone_is_an_outage(photos, plan, impatient):
    from tests.data.remote.servers import web_server

    with web_server(photos) as url:
        images = open_images(url)
    with pytest.raises(StoreError, match="cannot be read: 4 tries"):
        images.read(0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_ends_the_run_at_once(site, plan, status):
    images = open_images(f"{site}/photos")
    plan.fault, before = (lambda handler: answer(handler, status)), plan.asked.total()
    with pytest.raises(StoreError, match=rf"is refused \(HTTP {status}.*check the address, and the credentials"):
        images.read(0)
    assert plan.asked.total() == before + 1


@pytest.mark.parametrize("to", ["file:///etc/hostname", "memory://a.png", "ftp://127.0.0.1/a.png"])
def test_a_redirect_to_another_kind_of_place_is_not_followed(site, plan, to):
    images = open_images(f"{site}/photos")
    plan.fault = lambda handler: answer(handler, 302, Location=to)
    quarantine = Quarantine(None, 3, len(images))
    with pytest.raises(DataError, match="images are bad"):
        list(loader(images, quarantine=quarantine))
    assert all("which is not followed" in reason for reason in quarantine.bad.values())


def test_a_redirect_on_web_servers_is_followed(photos, site, plan):
    images, local = open_images(f"{site}/photos"), open_images(photos)
    shutil.copytree(photos, photos.parent / "moved")
    plan.fault = lambda h: h.path.startswith("/photos") and answer(h, 302, Location=h.path.replace("/photos", "/moved"))
    assert np.array_equal(images.read(5), local.read(5))


def test_reads_ahead_are_made_at_the_same_time(site, plan):
    images, together = open_images(f"{site}/photos"), threading.Barrier(8, timeout=60)

    def wait_for_others(handler: Handler) -> bool:
        together.wait()
        return False

    plan.fault = wait_for_others
    images.prefetch(range(8))
    assert len([images.read(i) for i in range(8)]) == 8  # one after the other, they would wait for ever


def test_what_is_read_ahead_is_asked_for_once(site, plan):
    images = open_images(f"{site}/photos")
    list(loader(images, workers=2, steps=range(3)))  # one epoch of 24 images
    asked = [count for path, count in plan.asked.items() if path.startswith("GET") and path.endswith(".png")]
    assert sorted(asked) == [1] * 23 + [2]  # the first one also tells the usual size


def test_an_abandoned_loader_ends_its_readers(site, plan, monkeypatch):
    monkeypatch.setattr("moco.data.remote.retry.LONGEST", 1000.0)
    monkeypatch.setattr("moco.data.remote.retry.FIRST", 1000.0)
    images, before = open_images(f"{site}/photos"), set(threading.enumerate())
    batches = iter(loader(images, workers=2, steps=range(30)))
    next(batches)
    plan.fault = lambda handler: answer(handler, 503)
    images.prefetch(range(24))
    batches.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while any(one.name.startswith("moco-remote") for one in {*threading.enumerate()} - before):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_waits_grow_twofold_up_to_a_limit_and_are_spread():
    waits: list[float] = []
    failures = iter([ConnectionError()] * 12)

    def read() -> int:
        for error in failures:
            raise error
        return 7

    assert retry(read, "http://a/b", patience=1e9, wait=waits.append) == 7
    most = [min(20, 0.2 * 2**k) for k in range(12)]
    assert all(m / 2 <= wait <= m for wait, m in zip(waits, most, strict=True))
    assert len(set(waits)) == 12


def test_errors_that_are_not_the_stores_are_not_repeated():
    def read() -> int:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        retry(read, "http://a/b", patience=1e9, wait=lambda _: pytest.fail("waits"))
