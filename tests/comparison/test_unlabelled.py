"""Comparison without labels: the measures on tensors, the statistics on synthetic features, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures
from scipy.stats import t
from sklearn.metrics import adjusted_mutual_info_score
from typer.testing import CliRunner

import moco
from moco.cli import app
from moco.comparison import unlabelled
from moco.comparison.unlabelled import (
    AGREE,
    FINDS,
    Consistency,
    TwoViews,
    compare_consistency,
    differences_without_labels,
    extract_views,
    measure_views,
    t_quantile,
)  # fmt: skip
from moco.data.sources.folder import find_images
from moco.evaluate.baselines import Pixels
from moco.recipe import DataSpec, Recipe
from moco.weights.encoder_folder import save_encoder
from tests.evaluate.samples import CPU, DATA, SPEC, trained_encoder


def two_views(seed: int, *, noise: float, images: int = 200, clusters: int = 6) -> TwoViews:
    """Images around a centre for each cluster; their views differ from them by noise."""
    rng, shared = (torch.Generator().manual_seed(one) for one in (seed, 99))
    centres = torch.randn(clusters, 16, generator=shared)
    image = centres[torch.arange(images) % clusters] + 0.5 * torch.randn(images, 16, generator=shared)
    a, b = (image + noise * torch.randn(images, 16, generator=rng) for _ in range(2))
    return TwoViews(a, b, np.arange(images))


def answer(ours: Consistency, theirs: Consistency) -> str:
    found = compare_consistency("ours", {"ours": [ours], "other": [theirs]}, images=len(ours.finds), split="")
    return found.verdict.answer


def test_a_view_is_found_if_no_other_image_is_nearer():
    a, b = torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]  # the views of images 2 and 3 are swapped
    assert measure_views(TwoViews(a.repeat(1, 2), b.repeat(1, 2), np.arange(4))).finds.tolist() == [1, 1, 0, 0]


def test_the_agreement_of_clusters_is_scikit_learns(monkeypatch: pytest.MonkeyPatch):
    clusterings: list[np.ndarray] = []
    cluster = unlabelled.k_means

    def keep(x: torch.Tensor, clusters: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = cluster(x, clusters, seed=seed)
        clusterings.append(found[0].numpy())
        return found

    monkeypatch.setattr(unlabelled, "k_means", keep)
    found = measure_views(two_views(0, noise=0.8)).agree
    expected = [adjusted_mutual_info_score(*pair) for pair in zip(clusterings[::2], clusterings[1::2], strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert 0.1 < found.mean() < 0.95


@pytest.mark.parametrize(("p", "degrees"), [(0.975, 19), (0.9917, 19), (0.9, 3)])
def test_the_quantile_of_students_t_is_scipys(p: float, degrees: int):
    assert t_quantile(p, degrees) == pytest.approx(t.ppf(p, degrees), rel=1e-5)


def test_the_interval_of_the_agreement_is_the_mean_over_halves_and_t_standard_deviations():
    rng = np.random.default_rng(0)
    ours, theirs = (Consistency(rng.random(20), np.ones(60)) for _ in range(2))
    apart = 100 * (ours.agree - theirs.agree)
    one = differences_without_labels(ours, [theirs], level=0.95)[AGREE]
    reach = t.ppf(0.975, 19) * apart.std(ddof=1)
    assert (one.points, one.low, one.high) == pytest.approx(
        (apart.mean(), apart.mean() - reach, apart.mean() + reach), rel=1e-5
    )  # fmt: skip


def test_the_same_encoder_twice_gives_no_call():
    one = measure_views(two_views(0, noise=0.5))
    assert answer(one, one) == "cannot tell"


def test_encoders_with_the_same_noise_are_called_different_in_at_most_one_of_20_draws():
    pairs = [[measure_views(two_views(2 * draw + k, noise=0.8)) for k in range(2)] for draw in range(20)]
    assert sum(answer(*pair) != "cannot tell" for pair in pairs) <= 1


def test_an_encoder_whose_views_differ_more_is_less_consistent():
    steady, noisy = (measure_views(two_views(0, noise=noise)) for noise in (0.3, 1.0))
    assert (answer(steady, noisy), answer(noisy, steady)) == ("yes", "no")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "mine", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    return tmp_path / "mine"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "flat", 128)


def test_views_are_the_same_at_every_size_and_bad_images_are_left_out(flat: Path):
    (flat / "0003.png").write_bytes(b"no picture")
    images = find_images(flat)
    found = []
    for size in (16, 32):
        data = DataSpec(size=size, eval_resize=size)
        pixels = Pixels(data)
        pixels.side = 4
        found.append(extract_views({"": pixels}, images, data, count=128, device=CPU, workers=0)[""])
    small, large = found
    assert small.ids.tolist() == large.ids.tolist() == [i for i in range(128) if i != 3]
    for one, other in ((small.a, large.a), (small.b, large.b)):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.95
    assert torch.corrcoef(torch.stack([small.a.flatten(), small.b.flatten()]))[0, 1] < 0.9


def test_images_without_labels_give_a_hint_with_the_reason(encoder: Path, flat: Path):
    found = moco.compare(encoder, flat, baselines=["random", "pixels"])
    assert list(found.scores) == ["mine", "random", "pixels"]
    assert [len(one[AGREE]) for one in found.scores.values()] == [1, 3, 1]
    text = " ".join(str(found).split())
    assert "Is it worth it?" not in text
    assert "Without labels, which is a hint and says nothing about accuracy: " in text
    assert "no labels: none of the 128 lies in a class folder" in text
    assert set(found.differences["pixels"]) == {AGREE, FINDS}


def test_labels_are_left_unused_on_request(encoder: Path, tmp_path: Path):
    labelled = make_pictures(tmp_path / "labelled", 64, classes=2)
    command = ["compare", str(encoder), str(labelled), "--baselines", "pixels", "--no-labels", "--json"]
    content = json.loads(CliRunner().invoke(app, command).stdout)
    assert content["used_labels"] is False
    assert content["notes"] == ["labels were not asked for"]
