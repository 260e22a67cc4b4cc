"""Keys of the query's own group are no negatives: they take no part in the loss and its gradient (float64)."""

import pytest
import torch
import torch.nn.functional as F

from moco.method import Batch, LookUp, MemoryBank, Owners, Queue, info_nce
from moco.method.loss import SMALLEST_UNSHIFTED, compare

N, C, IMAGES = 6, 8, 40
GROUPS = torch.arange(IMAGES) // 4 * 4  # clips of four frames; the number of a group is that of its first image


def unit(rows, seed):
    return F.normalize(torch.randn(rows, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


def queue_with(ids, groups=GROUPS):
    """A queue whose first keys are of the images `ids`; the others are random."""
    queue = Queue(50, C).double()
    queue.owners = Owners(groups)
    queue.update(unit(len(ids), 5), torch.tensor(ids), 1)
    return queue


def by_query(q, positive, negatives, tau):
    """Eqn. (1), one query at a time, each with its own list of negatives."""
    terms = []
    for one, own, others in zip(q, positive, negatives, strict=True):
        l_pos = torch.exp(one @ own / tau)
        terms.append(-torch.log(l_pos / (l_pos + torch.exp(others @ one / tau).sum())))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["image", "group"])
@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("tau", [SMALLEST_UNSHIFTED / 2, 0.07, 0.2])
def test_a_queue_leaves_out_keys_of_the_querys_own_group(tau, block, groups):
    ids, in_queue = torch.tensor([0, 5, 9, 13, 22, 39]), [1, 2, 5, 4, 4, 30, 9, 9, 20, 38, 0]
    queue, q, k = queue_with(in_queue, groups), unit(N, 1).requires_grad_(), unit(N, 2)
    loss = info_nce(queue.look_up(q, k, ids, torch.Generator()), tau, block=block)
    loss.backward()
    owner = (lambda image: int(groups[image])) if groups is not None else int
    keep = [[row for row in range(50) if row >= len(in_queue) or owner(in_queue[row]) != owner(image)] for image in ids]
    assert {len(rows) for rows in keep} - {50}, "the test needs keys that are left out"
    p = q.detach().clone().requires_grad_()
    expected = by_query(p, k, [queue.keys[rows] for rows in keep], tau)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-12)


def test_left_out_keys_do_not_count_in_the_contrastive_accuracy():
    queue = queue_with([0])
    q = unit(1, 1)
    queue.keys[0] = q[0]  # nearer than any positive, but of the same clip
    _, top1 = compare(
        queue.look_up(q, F.normalize(q + 0.1 * unit(1, 3), dim=1), torch.tensor([3]), torch.Generator()), 0.2
    )
    assert top1 == 1
    queue.owners = None
    _, top1 = compare(
        queue.look_up(q, F.normalize(q + 0.1 * unit(1, 3), dim=1), torch.tensor([3]), torch.Generator()), 0.2
    )
    assert top1 == 0


def test_the_logits_of_left_out_keys_are_minus_infinity():
    queue = queue_with([1, 2, 30])
    logits, _ = queue.look_up(unit(1, 1), unit(1, 2), torch.tensor([0]), torch.Generator()).logits()
    assert torch.isneginf(logits[0]).nonzero().flatten().tolist() == [1, 2]  # after the positive


def test_in_batch_keys_leave_out_other_images_of_the_group_but_not_the_positive():
    ids = torch.tensor([0, 1, 9, 2, 22, 23])
    batch, q, k = Batch(), unit(N, 1).requires_grad_(), unit(N, 2).requires_grad_()
    batch.owners = Owners(GROUPS)
    loss = info_nce(batch.look_up(q, k, ids, torch.Generator()), 0.2)
    loss.backward()
    p, r = (x.detach().clone().requires_grad_() for x in (q, k))
    negatives = [r[[j for j in range(N) if GROUPS[ids[j]] != GROUPS[ids[i]]]] for i in range(N)]
    expected = by_query(p, r, negatives, 0.2)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(k.grad, r.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_a_memory_bank_leaves_out_drawn_keys_of_the_group(shared):
    ids = torch.tensor([0, 5, 9, 13, 22, 39])
    bank, q = MemoryBank(IMAGES, 30, C, shared=shared).double(), unit(N, 1).requires_grad_()
    plain = bank.look_up(q, q.detach(), ids, torch.Generator().manual_seed(1))
    bank.owners = Owners(GROUPS)
    masked = bank.look_up(q, q.detach(), ids, torch.Generator().manual_seed(1))
    row_of = {tuple(row.tolist()): image for image, row in enumerate(bank.keys)}
    of_query = plain.keys.expand(N, -1, -1) if shared else plain.keys[plain.drawn]
    images = [[row_of[tuple(row.tolist())] for row in rows] for rows in of_query]
    keep = [[j for j in range(30) if GROUPS[images[i][j]] != GROUPS[ids[i]]] for i in range(N)]
    assert min(len(rows) for rows in keep) < 30
    expected = by_query(q, bank.keys[ids], [of_query[i][keep[i]] for i in range(N)], 0.2)
    torch.testing.assert_close(info_nce(masked, 0.2), expected, rtol=1e-10, atol=0)


def test_where_all_keys_are_left_out_the_loss_is_zero():
    q = unit(1, 1).requires_grad_()
    look_up = LookUp(q, unit(5, 3), positive=unit(1, 2), owners=(torch.tensor([0]), torch.zeros(5, dtype=torch.long)))
    for tau in (0.01, 0.2):
        loss = info_nce(look_up, tau)
        (grad,) = torch.autograd.grad(loss, q)
        torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-10)


def test_random_keys_are_negatives_of_every_query():
    queue = Queue(50, C).double()
    queue.owners = Owners(GROUPS)
    q, k = unit(N, 1), unit(N, 2)
    masked = info_nce(queue.look_up(q, k, torch.tensor([0, 39, 39, 1, 2, 3]), torch.Generator()), 0.2)
    assert masked == info_nce(LookUp(q, queue.keys, positive=k), 0.2)


def test_owners_are_not_in_checkpoints():
    queue = queue_with([0])
    assert set(queue.state_dict()) == set(Queue(50, C).state_dict())
