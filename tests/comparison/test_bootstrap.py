import numpy as np
from scipy.stats import bootstrap

from moco.comparison.bootstrap import HALVES, draw_halves, draw_resamples, interval, noise_of_halves, resample_means


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random((2, 300)) < [[0.7], [0.6]]).astype(float)
    found = interval(resample_means((ours - theirs)[None], draw_resamples(300, resamples=9000)), level=0.95)
    theirs = bootstrap(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, vectorized=True, n_resamples=9000,
        method="percentile", rng=rng,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(found, theirs, atol=0.008)  # 0.2 standard errors of the difference


def test_the_variance_over_draws_and_images_is_the_sum_of_both():
    rng = np.random.default_rng(1)
    of_draw, of_image = rng.normal(size=(8, 1)), rng.normal(size=(1, 100))
    means = resample_means(of_draw + of_image, draw_resamples(100, 8, resamples=8000))
    np.testing.assert_allclose(means.var(), of_draw.var() / 8 + of_image.var() / 100, rtol=0.1)


def test_every_resample_has_shares_that_sum_to_one():
    resamples = draw_resamples(50, 3, resamples=20)
    np.testing.assert_allclose(resamples.images.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(resamples.draws.sum(axis=1), 1, rtol=1e-5)


def test_halves_have_half_of_the_images_and_differ():
    halves = draw_halves(61)
    assert halves.shape == (HALVES, 61)
    assert set(halves.sum(axis=1)) == {30}
    assert len(np.unique(halves, axis=0)) == HALVES


def test_the_variance_over_halves_is_that_of_the_mean_of_new_images():
    """For any numbers x of n training images, the variance of a half's mean is var(x) / n."""
    x = np.random.default_rng(2).normal(size=400)
    means = np.array([x[half].mean() for half in draw_halves(400, count=4000)])
    np.testing.assert_allclose(means.var(), x.var() / 400, rtol=0.1)


def test_noise_of_halves_has_mean_zero_and_the_variance_of_the_halves():
    values = np.random.default_rng(3).normal(5, 1, size=(HALVES, 10))
    noise = noise_of_halves(values, draw_resamples(10, resamples=20000))
    assert abs(noise.mean()) < 0.01
    np.testing.assert_allclose(noise.var(), values.mean(axis=1).var(), rtol=0.05)
