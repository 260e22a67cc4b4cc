"""Against the definition of a minimum, in float64, and against scikit-learn."""

import pytest
import torch
import torch.nn.functional as F

from moco.evaluate import logistic
from moco.evaluate.logistic import Logistic, Standardization, fit
from tests.evaluate.samples import clouds


def objective(classifier: Logistic, x: torch.Tensor, labels: torch.Tensor, l2: float) -> torch.Tensor:
    logits = F.linear(x.double(), classifier.weight, classifier.bias)
    return F.cross_entropy(logits, labels) + l2 / 2 * classifier.weight.square().sum()


def gradient(classifier: Logistic, x: torch.Tensor, labels: torch.Tensor, l2: float) -> float:
    """The greatest part of the objective's gradient."""
    parts = [part.double().requires_grad_() for part in classifier]
    objective(Logistic(*parts), x, labels, l2).backward()
    return max(part.grad.abs().max().item() for part in parts if part.grad is not None)


@pytest.mark.parametrize("l2", [1.0, 0.1, 1e-2, 1e-3])
@pytest.mark.parametrize(("n", "dims"), [(400, 12), (30, 12), (20, 100)])
def test_the_gradient_vanishes_at_the_result(l2: float, n: int, dims: int):
    some = clouds(n, dims=dims, noise=2)
    x, labels = Standardization.of(some.x)(some.x), some.known_labels()
    found = fit(x, labels, classes=4, l2=l2)
    start = Logistic(torch.zeros(4, dims), torch.zeros(4))
    assert gradient(found, x, labels, l2) < 0.01 * gradient(start, x, labels, l2)


@pytest.mark.parametrize(("n", "l2"), [(400, 0.1), (400, 1e-3), (60, 1e-2)])
def test_it_reaches_the_minimum_that_scikit_learn_finds(n: int, l2: float):
    linear_model = pytest.importorskip("sklearn.linear_model")
    some = clouds(n, dims=80, noise=3)
    x, labels = Standardization.of(some.x)(some.x), some.known_labels()
    theirs = linear_model.LogisticRegression(C=1 / (l2 * n), max_iter=10_000, tol=1e-10).fit(x.double(), labels)
    best = objective(Logistic(*map(torch.from_numpy, (theirs.coef_, theirs.intercept_))), x, labels, l2).item()
    ours = fit(x, labels, classes=4, l2=l2)
    ours_in_float64 = Logistic(ours.weight.double(), ours.bias.double())
    assert objective(ours_in_float64, x, labels, l2).item() == pytest.approx(best, rel=2e-3)
    agreement = (ours.predict(x) == torch.from_numpy(theirs.predict(x.double()))).double().mean()
    assert agreement > 0.99


def test_a_fit_in_chunks_of_rows_gives_the_same_result(monkeypatch: pytest.MonkeyPatch):
    some = clouds(100, noise=2)
    whole = fit(some.x, some.known_labels(), classes=4, l2=0.1)
    monkeypatch.setattr(logistic, "ROWS_AT_A_TIME", 7)
    parts = fit(some.x, some.known_labels(), classes=4, l2=0.1)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-3, rtol=1e-3)
    assert torch.equal(parts.predict(some.x), whole.predict(some.x))


@pytest.mark.parametrize("dims", [12, 150])
def test_the_fit_does_not_depend_on_its_start(dims: int):
    some = clouds(100, dims=dims, noise=2)
    x, labels = Standardization.of(some.x)(some.x), some.known_labels()
    far = Logistic(torch.full((4, dims), 0.3), torch.ones(4))
    one, other = (fit(x, labels, classes=4, l2=0.1, start=start) for start in (None, far))
    if dims < len(x):  # otherwise a start outside of the images' span counts for nothing
        torch.testing.assert_close(one.weight, other.weight, atol=5e-3, rtol=0)
    assert torch.equal(one.predict(x), other.predict(x))


def test_gradients_may_be_off_around_it():
    some = clouds(40)
    with torch.no_grad():
        found = fit(some.x, some.known_labels(), classes=4, l2=0.1)
    assert found.weight.abs().max() > 0


def test_a_scale_gives_mean_0_and_deviation_1_and_leaves_what_does_not_vary_at_0():
    x = torch.randn(200, 5) * torch.tensor([1.0, 100.0, 1e-3, 1.0, 0.0]) + torch.tensor([0.0, 5.0, 0.0, -3.0, 7.0])
    scaled = Standardization.of(x)(x)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.tensor([1.0, 1, 1, 1, 0]), atol=1e-3, rtol=0)
