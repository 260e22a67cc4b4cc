"""What is in a mini-batch of views."""

import pytest
import torch

from moco.data.augment import cpu
from tests.data.loader.loading import CountingImages, loader, view_of


@pytest.fixture(params=["compiled", "slow", "colours on the device"])
def way(request, monkeypatch) -> str:
    """The ways in which views are made."""
    if request.param == "compiled":
        assert cpu.kernels(wait=True) is not None
    elif request.param == "slow":
        monkeypatch.setattr(cpu, "kernels", lambda: None)
    return request.param


def test_each_view_equals_the_view_made_of_the_image_alone(images, way: str):
    made = loader(images)
    made.maker.coloured = way != "colours on the device"
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


def test_the_views_of_an_image_differ_between_epochs(images):
    batches = list(loader(images))
    once, again = (
        {index: view for batch in part for index, view in zip(batch.ids.tolist(), batch.views[0], strict=True)}
        for part in (batches[:3], batches[3:])
    )
    shared = set(once) & set(again)
    assert shared
    assert not any(torch.equal(once[index], again[index]) for index in shared)


def test_an_image_is_read_once_for_both_views(mixed_ones):
    counting = CountingImages(mixed_ones)
    made = loader(counting, steps=range(3))
    counting.reads.clear()
    batches = list(made)
    assert counting.reads == torch.cat([batch.ids for batch in batches]).tolist()


def test_a_small_image_is_read_once_in_a_run(small_ones):
    counting = CountingImages(small_ones)
    made = loader(counting, steps=range(30))
    counting.reads.clear()
    seen = torch.cat([batch.ids for batch in made]).tolist()
    assert len(seen) == 240
    assert sorted(counting.reads) == sorted(set(seen))


def test_a_mini_batch_that_the_consumer_holds_is_not_overwritten(images):
    made = iter(loader(images, steps=range(12), workers=2))
    first = next(made)
    part, before = first.views[0][2:5, 1], first.views[0][2:5, 1].clone()
    del first
    list(made)
    assert torch.equal(part, before)


def test_memory_is_used_again(images):
    addresses = [batch.views[0].data_ptr() for batch in loader(images, steps=range(12))]
    assert len(set(addresses)) <= 4
