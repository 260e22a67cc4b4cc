"""Queue, Batch and MemoryBank: what is in them after which update."""

from collections import deque

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.method import Batch, MemoryBank, Queue, info_nce

rng = torch.Generator()


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 40), batches=st.lists(st.integers(1, 40), max_size=12))
def test_queue_equals_a_deque_for_any_batch_sizes(size, batches):
    queue, made = Queue(size, 3), 0
    expected = deque([(tuple(key.tolist()), -1, -1) for key in queue.keys], maxlen=size)
    for step, n in enumerate(min(batch, size) for batch in batches):
        k, ids = torch.randn(n, 3), torch.arange(made, made + n)
        queue.update(k, ids, step)
        expected.extend((tuple(key.tolist()), i, step) for key, i in zip(k, ids.tolist(), strict=True))
        made += n
    order = (queue.oldest + torch.arange(size)) % size  # from the oldest to the newest
    found = zip(queue.keys[order], queue.ids[order].tolist(), queue.born[order].tolist(), strict=True)
    assert [(tuple(key.tolist()), i, born) for key, i, born in found] == list(expected)


def test_queue_refuses_more_keys_than_it_holds():
    with pytest.raises(ValueError, match="4 keys cannot take 5"):
        Queue(4, 3).update(torch.randn(5, 3), torch.arange(5), 0)


def test_a_new_queue_holds_random_unit_keys_marked_as_random():
    queue = Queue(1000, 8)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(1000))
    assert queue.keys.mean(dim=0).abs().max() < 0.1  # not all in one direction
    assert (queue.ids == -1).all()
    assert (queue.born == -1).all()


def test_everything_in_a_queue_is_in_its_state():
    queue = Queue(5, 2)
    queue.update(torch.randn(3, 2), torch.tensor([7, 8, 9]), 4)
    again = Queue(5, 2)
    again.load_state_dict(queue.state_dict())
    for name in ("keys", "ids", "born", "oldest"):
        assert torch.equal(getattr(queue, name), getattr(again, name))


def test_keys_are_looked_up_before_they_are_enqueued():
    queue, k = Queue(8, 4), F.normalize(torch.randn(2, 4), dim=1)
    looked_up = queue.look_up(k, k, torch.arange(2), rng)
    assert not (looked_up.keys[:, None] == k).all(dim=2).any()


def test_memory_bank_averages_the_keys_of_an_image_and_keeps_unit_length():
    bank, k = MemoryBank(6, 3, 4, momentum=0.5), F.normalize(torch.randn(2, 4), dim=1)
    before, ids = bank.keys.clone(), torch.tensor([4, 1])
    bank.update(k, ids, 0)
    expected = 0.5 * before[ids] + 0.5 * k
    torch.testing.assert_close(bank.keys[ids], expected / expected.norm(dim=1, keepdim=True))
    untouched = [0, 2, 3, 5]
    assert torch.equal(bank.keys[untouched], before[untouched])


def test_memory_bank_compares_with_the_images_own_slot_and_k_drawn_keys():
    bank, q, ids = MemoryBank(50, 7, 4), torch.randn(3, 4), torch.tensor([5, 0, 9])
    looked_up = bank.look_up(q, q, ids, torch.Generator().manual_seed(0))
    assert torch.equal(looked_up.positive, bank.keys[ids])
    assert looked_up.keys.shape == (7, 4)
    assert all((bank.keys == key).all(dim=1).any() for key in looked_up.keys)


def test_the_three_dictionaries_give_the_same_loss_for_the_same_keys():
    keys = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    q, ids = F.normalize(torch.randn(1, 4, dtype=torch.float64), dim=1), torch.tensor([2])
    queue, bank = Queue(5, 4).double(), MemoryBank(6, 5, 4).double()
    queue.keys.copy_(keys[[0, 1, 3, 4, 5]])
    bank.keys.copy_(keys)
    bank_look_up = bank.look_up(q, q, ids, rng)._replace(keys=keys[[0, 1, 3, 4, 5]])
    match = Batch().look_up(q, keys, ids, rng)._replace(match=ids)
    losses = [info_nce(queue.look_up(q, keys[ids], ids, rng), 0.2), info_nce(bank_look_up, 0.2), info_nce(match, 0.2)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_all_parts_of_a_step_have_the_same_negatives_and_the_next_step_others():
    bank, q, ids = MemoryBank(50, 7, 4), torch.randn(3, 4), torch.tensor([5, 0, 9])
    rng = torch.Generator().manual_seed(8)
    first, second = bank.look_up(q, q, ids, rng).keys, bank.look_up(q, q, ids, rng).keys
    assert torch.equal(first, second)
    assert not torch.equal(first, bank.look_up(q, q, ids, torch.Generator().manual_seed(9)).keys)


def test_negatives_for_each_query_are_its_own_and_do_not_depend_on_its_neighbours():
    bank, q, ids = MemoryBank(50, 7, 4, shared=False), torch.randn(3, 4), torch.tensor([5, 0, 9])
    rng = torch.Generator().manual_seed(8)
    drawn = bank.look_up(q, q, ids, rng).drawn
    assert drawn.shape == (3, 7)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(bank.look_up(q[1:2], q[1:2], ids[1:2], rng).drawn, drawn[1:2])


def test_an_image_that_occurs_twice_enters_the_bank_as_the_mean_of_its_embeddings():
    bank, k = MemoryBank(6, 3, 4), F.normalize(torch.randn(3, 4), dim=1)
    before = bank.keys.clone()
    bank.update(k, torch.tensor([4, 1, 4]), 0)
    twice, once = 0.5 * before[4] + 0.5 * (k[0] + k[2]) / 2, 0.5 * before[1] + 0.5 * k[1]
    torch.testing.assert_close(bank.keys[4], twice / twice.norm())
    torch.testing.assert_close(bank.keys[1], once / once.norm())
