"""Mini-batches of views: the same for any number of threads, from any step on, with bad images among them."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from making import make_pictures

from moco.data.augment import cpu, draw
from moco.data.loader import cache
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.cache import kept_for
from moco.data.loader.loader import Batch, Piece, ViewLoader, eval_batches
from moco.data.loader.threads import Abandoned, in_order
from moco.data.sources.folder import BadImage, DataError, Folder, find_images
from moco.data.sources.images import Images
from moco.recipe import DataSpec, Jitter, View
from moco.rng import fold

CPU = torch.device("cpu")
STRONG = View(crop_area=(0.3, 1.4), jitter=Jitter(), grey=0.2, blur=0.5, solarize=0.2)
DATA = DataSpec(size=16, eval_resize=16, views=(STRONG, View(blur=0.3)))
SEED = 7


@pytest.fixture
def small_ones(tmp_path) -> Folder:
    """30 pictures of 20 x 24 pixels: they go the way of the small ones."""
    return find_images(make_pictures(tmp_path / "small", 30))


@pytest.fixture
def mixed_ones(tmp_path) -> Folder:
    """30 pictures of two sizes, read one by one."""
    make_pictures(tmp_path / "mixed" / "a", 15, side=20)
    make_pictures(tmp_path / "mixed" / "b", 15, side=31)
    return find_images(tmp_path / "mixed")


@pytest.fixture(params=["small_ones", "mixed_ones"])
def images(request) -> Folder:
    """Both kinds."""
    return request.getfixturevalue(request.param)


def no_limit(images: Images, file: Path | None = None) -> Quarantine:
    return Quarantine(file, len(images), len(images))


def loader(images: Images, **options) -> ViewLoader:
    settings = {"batch_size": 8, "seed": SEED, "steps": range(6), "workers": 0, "device": CPU} | options
    settings.setdefault("quarantine", no_limit(images))
    return ViewLoader(images, DATA, **settings)


def same(one: list[Batch], other: list[Batch]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(a.ids, b.ids) and all(map(torch.equal, a.views, b.views)) for a, b in zip(one, other, strict=True)
    )


def spoil(images: Folder, *indices: int) -> list[str]:
    """Break the files of some images; their names."""
    for index in indices:
        Path(images.path(index)).write_bytes(b"broken")
    return [images.names[index] for index in indices]


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("moco-data")]


class Remote:
    """Images that are counted, delayed or refused when they are read."""

    def __init__(self, images: Images, *, delay: float = 0.0, fails: type[BaseException] | None = None, after: int = 0):
        self.names, self.labels, self.classes = images.names, images.labels, images.classes
        self.sizes, self.mtimes = images.sizes, images.mtimes
        self.images, self.delay, self.fails, self.after, self.reads = images, delay, fails, after, []

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int):
        time.sleep(self.delay)
        self.reads.append(index)
        if self.fails and len(self.reads) > self.after:
            raise self.fails("out of luck")
        return self.images.read(index)


# --- what is in a mini-batch ----------------------------------------------------------------------------------------


def view_of(image: np.ndarray, step_epoch: int, place: int, index: int) -> torch.Tensor:
    """View `index` of one image by the functions of draw.py, with the numbers of `place`."""
    view = DATA.views[index]
    numbers = draw.random_numbers(SEED, step_epoch, ids=np.array([place]), view_index=index)
    boxes = draw.crop_boxes(view, numbers, heights=np.array(image.shape[:1]), widths=np.array(image.shape[1:2]))
    crop = draw.crop(image, boxes[0], flip=bool(draw.flips(view, numbers)[0]), size=DATA.size)
    colours = draw.colour(torch.from_numpy(crop)[None], draw.look(view, numbers))
    return draw.normalize(colours, mean=DATA.mean, std=DATA.std)[0]


@pytest.fixture(params=["compiled", "slow", "handed over"])
def way(request, monkeypatch) -> str:
    """The ways in which views are made."""
    if request.param == "compiled":
        assert cpu.kernels(wait=True) is not None
    elif request.param == "slow":
        monkeypatch.setattr(cpu, "kernels", lambda: None)
    return request.param


def test_the_views_are_those_that_augment_makes_of_each_image_alone(images, way: str):
    made = loader(images)
    made.on_host = way != "handed over"
    for step, batch in enumerate(made):
        for row, index in enumerate(batch.ids.tolist()):
            for which, views in enumerate(batch.views):
                assert torch.equal(views[row], view_of(images.read(index), step // 3, index, which))


def test_the_images_of_a_mini_batch_are_those_of_the_sampler(images):
    made = loader(images)
    assert [batch.ids.tolist() for batch in made] == [drawn.ids.tolist() for drawn in made.sampler]


def test_views_have_the_shape_and_type_that_an_encoder_takes(images):
    batch = next(iter(loader(images)))
    assert [view.shape for view in batch.views] == [(8, 3, 16, 16)] * 2
    assert {view.dtype for view in batch.views} == {torch.float32}
    assert batch.ids.dtype == torch.int64


def test_the_two_views_of_an_image_differ(images):
    batch = next(iter(loader(images)))
    assert not any(torch.equal(a, b) for a, b in zip(*batch.views, strict=True))


def test_an_image_looks_otherwise_in_another_epoch(images):
    batches = list(loader(images))
    once, again = (
        {index: view for batch in part for index, view in zip(batch.ids.tolist(), batch.views[0], strict=True)}
        for part in (batches[:3], batches[3:])
    )
    shared = set(once) & set(again)
    assert shared
    assert not any(torch.equal(once[index], again[index]) for index in shared)


def test_an_image_is_read_once_for_both_views(mixed_ones):
    remote = Remote(mixed_ones)
    made = loader(remote, steps=range(3))
    remote.reads.clear()
    batches = list(made)
    assert remote.reads == torch.cat([batch.ids for batch in batches]).tolist()


def test_small_images_are_read_once_in_all(small_ones):
    remote = Remote(small_ones)
    made = loader(remote, steps=range(30))
    remote.reads.clear()
    seen = torch.cat([batch.ids for batch in made]).tolist()
    assert len(seen) == 240
    assert sorted(remote.reads) == sorted(set(seen))


def test_a_mini_batch_that_is_kept_is_not_overwritten(images):
    made = iter(loader(images, steps=range(12), workers=2))
    first = next(made)
    part, before = first.views[0][2:5, 1], first.views[0][2:5, 1].clone()
    del first
    list(made)
    assert torch.equal(part, before)


def test_memory_is_used_again(images):
    addresses = [batch.views[0].data_ptr() for batch in loader(images, steps=range(12))]
    assert len(set(addresses)) <= 4


# --- the same mini-batches however they are made --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_makes_the_same_mini_batches(images, workers: int):
    assert same(list(loader(images, workers=workers)), list(loader(images)))


def test_torchs_own_threads_change_no_bit(images):
    one = list(loader(images, batch_size=24, workers=1))
    torch.set_num_threads(2)
    assert same(list(loader(images, batch_size=24)), one)


def test_with_numbers_that_threads_draw_the_mini_batches_would_depend_on_them(images, monkeypatch):
    first, make = loader(images).sampler.draw(0).ids, ViewLoader._make

    def made(workers: int) -> list[Batch]:
        rng, overtaken = np.random.default_rng(0), threading.Event()

        def noisy(self: ViewLoader, piece: Piece, gone: threading.Event) -> Piece:
            later = not np.array_equal(piece.plan.drawn.ids, first)
            if workers and not later:
                assert overtaken.wait(60)  # the first mini-batch takes longest
            make(self, piece, gone)
            for crops in piece.slot.crops:
                crops[piece.rows] ^= rng.integers(256, size=crops[piece.rows].shape, dtype=np.uint8)
            if later:
                overtaken.set()
            return piece

        monkeypatch.setattr(ViewLoader, "_make", noisy)
        return list(loader(images, workers=workers))

    assert same(made(0), made(0))
    assert not same(made(0), made(3))


@pytest.mark.parametrize("start", [1, 3, 5])
def test_with_dice_of_one_shared_generator_a_later_start_would_go_on_with_others(images, monkeypatch, start: int):
    def made(steps: range) -> list[Batch]:
        rng = np.random.default_rng(0)
        monkeypatch.setattr(
            draw.rng,
            "uniform",
            lambda seed, epoch, ids, slots: rng.random(np.broadcast_shapes(ids.shape, slots.shape)),
        )
        return list(loader(images, steps=steps))

    assert same(made(range(6)), made(range(6)))
    assert not same(made(range(start, 6)), made(range(6))[start:])


@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_start_at_a_later_step_goes_on_with_the_same_mini_batches(images, start: int):
    assert same(list(loader(images, steps=range(start, 6), workers=2)), list(loader(images))[start:])


def test_the_shares_of_two_ranks_are_the_mini_batch_of_one(images):
    alone = list(loader(images))
    shares = [list(loader(images, rank=rank, world_size=2, workers=rank)) for rank in range(2)]
    joined = [
        Batch([torch.cat(pair) for pair in zip(a.views, b.views, strict=True)], torch.cat([a.ids, b.ids]))
        for a, b in zip(*shares, strict=True)
    ]
    assert same(joined, alone)


def test_another_seed_gives_other_mini_batches(images):
    assert not same(list(loader(images, seed=1)), list(loader(images)))


def test_a_loader_can_be_gone_through_again(images):
    made = loader(images, workers=1)
    assert same(list(made), list(made))
    assert len(made) == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_mini_batches(images):
    ours = [Batch([view.cpu() for view in b.views], b.ids.cpu()) for b in loader(images, device=torch.device("cuda"))]
    for a, b in zip(ours, loader(images), strict=True):
        assert torch.equal(a.ids, b.ids)
        for one, other in zip(a.views, b.views, strict=True):
            torch.testing.assert_close(one, other, atol=2 / 255 / 0.22, rtol=0)


# --- small images in memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "together"), [(60, True), (61, False)])
def test_only_images_of_at_most_64_pixels_are_kept_in_memory(tmp_path, side: int, together: bool):
    images = find_images(make_pictures(tmp_path, 3, side=side))  # side x (side + 4)
    assert (loader(images, batch_size=2).kept is not None) == together


@pytest.mark.parametrize("odd_one", [0, 5, 9])
def test_images_of_another_size_than_the_others_are_not_kept(tmp_path, odd_one: int):
    images = find_images(make_pictures(tmp_path, 10))
    make_pictures(tmp_path / "other", 1, side=21)
    (tmp_path / "other" / "0000.png").rename(images.path(odd_one))
    made = loader(images, batch_size=5, steps=range(4))
    for step, batch in enumerate(made):
        for row, index in enumerate(batch.ids.tolist()):
            assert torch.equal(batch.views[0][row], view_of(images.read(index), step // 2, index, 0))
    assert made.kept is not None
    first_one_is_odd = [index == 0 for index in range(10)]
    others_are_odd = [index != odd_one for index in range(10)]
    assert made.kept.here.tolist() == (first_one_is_odd if odd_one == 0 else others_are_odd)


def test_only_as_many_images_as_fit_are_kept_in_memory(small_ones, monkeypatch):
    monkeypatch.setattr(cache, "MAX_MEMORY", 30 * 3 * 20 * 24)
    assert kept_for(small_ones, (20, 24)) is not None
    monkeypatch.setattr(cache, "MAX_MEMORY", 30 * 3 * 20 * 24 - 1)
    assert kept_for(small_ones, (20, 24)) is None


def test_the_pixels_in_memory_are_those_of_the_files(small_ones):
    made = loader(small_ones, workers=3, steps=range(30))
    list(made)
    assert made.kept is not None
    assert made.kept.here.all()
    for index in range(30):
        assert np.array_equal(made.kept.pixels[index], small_ones.read(index))


# --- bad images -----------------------------------------------------------------------------------------------------


def test_a_bad_image_is_set_aside_and_replaced_alike_by_any_number_of_workers(images, tmp_path):
    names = spoil(images, 3, 11, 20)
    runs = []
    for workers in (0, 1, 4):
        quarantine = no_limit(images, tmp_path / f"bad{workers}.csv")
        runs.append(list(loader(images, workers=workers, quarantine=quarantine)))
        assert sorted(quarantine.bad) == sorted(names)
        assert all(name in (tmp_path / f"bad{workers}.csv").read_text() for name in names)
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_the_place_of_a_bad_image_is_taken_by_the_first_good_one_drawn(images):
    bad = {3, 11, 20, 21, 22, 23}
    spoil(images, *bad)
    made = loader(images)
    for drawn, batch in zip(made.sampler, made, strict=True):
        for asked, got in zip(drawn.ids.tolist(), batch.ids.tolist(), strict=True):
            candidates = (fold(SEED, drawn.epoch, asked, attempt) % 30 for attempt in itertools.count())
            assert got == (asked if asked not in bad else next(one for one in candidates if one not in bad))


def test_a_stand_in_is_seen_with_the_dice_of_the_place_it_takes(images):
    """With its own it could be the very same picture as its other appearance in the mini-batch."""
    spoil(images, 3, 11, 20)
    made = loader(images)
    stand_ins = 0
    for drawn, batch in zip(made.sampler, made, strict=True):
        for row, (asked, got) in enumerate(zip(drawn.ids.tolist(), batch.ids.tolist(), strict=True)):
            expected = view_of(images.read(got), drawn.epoch, asked, 0)
            assert torch.equal(batch.views[0][row], expected)
            stand_ins += asked != got
    assert stand_ins


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_images_stop_the_run(images, workers: int):
    spoil(images, 3, 11, 20)
    with pytest.raises(DataError, match=r"3 of 30 images are bad, more than the 2"):
        list(loader(images, workers=workers, quarantine=Quarantine(None, 2, 30)))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_all_bad_stop_the_run(images, workers: int):
    spoil(images, *range(30))
    with pytest.raises(DataError, match="all bad"):
        list(loader(images, workers=workers))


def test_an_image_that_goes_bad_after_it_was_kept_is_still_good(small_ones):
    before = list(loader(small_ones, steps=range(30)))
    made = loader(small_ones, steps=range(30))
    batches = iter(made)
    whole_epochs = [next(batches) for _ in range(29)]
    assert made.kept is not None
    assert made.kept.here.all()
    spoil(small_ones, *range(30))
    assert same([*whole_epochs, next(batches)], before)


# --- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_what_goes_wrong_in_a_thread_reaches_the_consumer(mixed_ones, workers: int, kind: type[BaseException]):
    made = loader(Remote(mixed_ones, fails=kind, after=20), workers=workers)
    with pytest.raises(kind, match="out of luck"):
        list(made)
    assert not data_threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_consumer_that_stops_early_leaves_no_thread(mixed_ones, workers: int):
    made = iter(loader(mixed_ones, workers=workers, steps=range(10_000)))
    next(made)
    made.close()
    assert not data_threads()


def test_a_consumer_that_stops_does_not_wait_for_whole_mini_batches(mixed_ones):
    remote = Remote(mixed_ones)
    made = iter(loader(remote, workers=2, steps=range(10_000), batch_size=24))
    next(made)
    remote.delay = 0.1
    time.sleep(0.15)
    before = len(remote.reads)
    made.close()
    assert len(remote.reads) - before <= 4  # each thread ends its image; a piece has 8


def test_an_exception_of_the_consumer_ends_the_threads(mixed_ones):
    def consume():
        for _ in loader(mixed_ones, workers=2, steps=range(10_000)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert not data_threads()


def test_without_workers_the_consumers_own_thread_works(mixed_ones, monkeypatch):
    seen, read = set(), Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, i: (seen.add(threading.current_thread()), read(self, i))[1])
    list(loader(mixed_ones, workers=0))
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_work_one_more_item_ahead_than_they_are_many(workers: int):
    begun = []
    made = in_order(lambda item, gone: begun.append(item), range(100), workers=workers)
    for consumed in range(1, 6):
        next(made)
        deadline = time.perf_counter() + 5
        while len(begun) < consumed + workers + 1 and time.perf_counter() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(begun) == consumed + workers + 1
    made.close()


def test_items_come_in_order_however_long_they_take():
    def work(item: int, gone: threading.Event) -> int:
        time.sleep(0.01 * (item % 3 == 0))
        return item

    assert list(in_order(work, range(20), workers=4)) == list(range(20))


def test_work_is_told_when_nobody_waits_for_it():
    begun, told = threading.Event(), threading.Event()

    def work(item: int, gone: threading.Event) -> int:
        if item == 0:
            return item
        begun.set()
        gone.wait(10)
        told.set()
        raise Abandoned

    made = in_order(work, range(3), workers=1)
    next(made)
    begun.wait(10)
    made.close()
    assert told.is_set()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_time_that_the_consumer_waits_is_counted(mixed_ones, workers: int):
    remote = Remote(mixed_ones)
    made = loader(remote, workers=workers, steps=range(2))
    remote.delay = 0.01
    start = time.perf_counter()
    for _ in made:
        pass
    total = time.perf_counter() - start
    assert 2 * 8 * 0.01 < made.waited <= total


def test_the_time_that_the_consumer_works_is_not_counted(small_ones):
    made = loader(small_ones, workers=1, steps=range(3))
    for _ in made:
        time.sleep(0.5)
    assert made.waited < 3 * 0.5


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_make_the_same_mini_batches(images, workers: int):
    assert same(list(loader(images, workers=workers, processes=True)), list(loader(images)))


def test_bad_images_that_processes_find_are_set_aside_alike(images, tmp_path):
    names = spoil(images, 3, 11, 20)
    quarantine = no_limit(images, tmp_path / "bad.csv")
    made = list(loader(images, workers=2, processes=True, quarantine=quarantine))
    assert sorted(quarantine.bad) == sorted(names)
    assert same(made, list(loader(images)))


@pytest.mark.faults
def test_processes_that_are_killed_are_replaced_and_nothing_changes(mixed_ones):
    batches = []
    for batch in loader(mixed_ones, workers=2, processes=True, steps=range(12)):
        batches.append(batch)
        if len(batches) in (2, 7):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert same(batches, list(loader(mixed_ones, steps=range(12))))


class Deadly(Remote):
    """Images of which one crashes the process that reads it."""

    def read(self, index: int):
        if index == 7 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.images.read(index)


@pytest.mark.faults
def test_an_image_that_crashes_its_process_is_set_aside_after_the_second_time(mixed_ones):
    quarantine = no_limit(mixed_ones)
    made = loader(Deadly(mixed_ones), workers=2, processes=True, quarantine=quarantine)
    batches = list(made)
    assert quarantine.bad == {mixed_ones.names[7]: "ends the process that reads it"}
    for drawn, batch in zip(made.sampler, batches, strict=True):
        others = drawn.ids != 7
        assert (batch.ids.numpy() == drawn.ids)[others].all()
        assert not (batch.ids == 7).any()


def test_what_goes_wrong_in_a_process_reaches_the_consumer(mixed_ones):
    with pytest.raises(OSError, match="out of luck"):
        list(loader(Remote(mixed_ones, fails=OSError, after=5), workers=2, processes=True))


def test_a_consumer_that_stops_early_leaves_no_process(mixed_ones):
    made = iter(loader(mixed_ones, workers=2, processes=True, steps=range(1000)))
    next(made)
    made.close()
    assert not multiprocessing.active_children()


# --- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_and_in_order(images, workers: int):
    made = list(eval_batches(images, DATA, batch_size=8, workers=workers, device=CPU))
    assert [len(ids) for _, ids in made] == [8, 8, 8, 6]
    assert torch.cat([ids for _, ids in made]).tolist() == list(range(30))
    for pixels, ids in made:
        for row, index in enumerate(ids.tolist()):
            crop = torch.from_numpy(draw.eval_crop(images.read(index), DATA))[None]
            assert torch.equal(pixels[row], draw.normalize(crop, mean=DATA.mean, std=DATA.std)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_an_evaluation(images, workers: int):
    (name,) = spoil(images, 9)
    with pytest.raises(DataError, match=f"{name}: .*repair it, or leave it out"):
        list(eval_batches(images, DATA, batch_size=8, workers=workers, device=CPU))


def test_an_evaluation_with_a_quarantine_leaves_bad_images_out(images):
    names = spoil(images, 9, *range(16, 24))
    quarantine = no_limit(images)
    made = list(eval_batches(images, DATA, batch_size=8, workers=1, device=CPU, quarantine=quarantine))
    assert torch.cat([ids for _, ids in made]).tolist() == [*range(9), *range(10, 16), *range(24, 30)]
    assert [len(ids) for _, ids in made] == [8, 7, 6]
    assert list(quarantine.bad) == names


def test_an_evaluation_that_stops_early_leaves_no_thread(images):
    made = eval_batches(images, DATA, batch_size=2, workers=3, device=CPU)
    next(made)
    made.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not data_threads()


def test_bad_image_is_the_only_exception_that_counts_as_a_bad_image(mixed_ones):
    with pytest.raises(BadImage):
        Remote(mixed_ones, fails=lambda text: BadImage("x", text)).read(0)  # pyright: ignore[reportArgumentType]
    quarantine = no_limit(mixed_ones)
    with pytest.raises(OSError, match="out of luck"):
        list(loader(Remote(mixed_ones, fails=OSError, after=20), quarantine=quarantine))
    assert not quarantine.bad
