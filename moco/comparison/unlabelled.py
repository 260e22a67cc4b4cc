"""Measures without labels: does an encoder see that two views show one image, and do its clusters of both views agree?

They compare encoders on the same views of the same images. They predict no accuracy, and favour an encoder that was
trained to give such views equal features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from moco.comparison.bootstrap import draw_halves, draw_resamples, interval, resample_means
from moco.comparison.result import Comparison
from moco.comparison.verdict import WITHOUT_LABELS, Difference, judge_all, judge_baseline, level_for
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import DataError, Images, Subset
from moco.diagnose.signals import adjusted_mutual_information, k_means
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import Pretrained, check_finite, set_eval_mode
from moco.evaluate.progress import Progress
from moco.recipe import DataSpec
from moco.recipe_specs import View
from moco.rng import fold, permute

AGREE, FINDS = "clusters agree", "finds its view"  # the first one decides
IMAGES = 2048  # at most
ROWS = 64  # images in a mini-batch of views
VIEWS = (View(), View())  # MoCo v2's crops and colours, without blur: the same for all encoders
CLUSTERS, EACH = 20, 16  # clusters, and images for each of them in a half, at least
DIMS = 64  # principal components in which features are clustered
HALVES = 20  # of the images, in which clusters are compared


@dataclass(frozen=True, eq=False)
class TwoViews:
    """The features of two views of n images, in the order of `ids`."""

    a: Float[Tensor, "n D"]
    b: Float[Tensor, "n D"]
    ids: Int64[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Consistency:
    """The measures of one encoder."""

    agree: Float[np.ndarray, "H"]  # adjusted mutual information of the clusters of both views, in each half
    finds: Float[np.ndarray, "n"]  # 1 if the view of the same image is the nearest one, else 0


def extract_views(
    encoders: Mapping[str, Encoder | Pixels],
    images: Images,
    data: DataSpec,
    *,
    count: int,
    device: torch.device,
    workers: int,
    progress: Progress | None = None,
) -> dict[str, TwoViews]:
    """The features that each encoder gives for two views of `count` images, at the size of `data`.

    Images and views are the same for every size. An image that cannot be read is replaced by another one.
    """
    rows = min(ROWS, count)
    chosen = np.sort(permute(np.arange(count), len(images), fold(0)))
    loader = ViewLoader(
        Subset(images, chosen), data.model_copy(update={"views": VIEWS}), batch_size=rows, seed=0,
        steps=range(count // rows), workers=workers, device=device, quarantine=Quarantine(None, count, count),
    )  # fmt: skip
    progress = progress or Progress()
    progress.stage("features of views", count // rows * rows)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in encoders}
    places: list[Tensor] = []
    for (first, second), ids in loader:
        places.append(ids.cpu())
        for name, encoder in encoders.items():
            with set_eval_mode(encoder):
                a, b = (encoder.features(x.clone()).float().cpu() for x in (first, second))
            parts[name].append((a, b))
        progress.add(rows)
    which, order = np.unique(torch.cat(places).numpy(), return_index=True)  # a replacement may occur twice
    found = {name: [torch.cat(one)[order] for one in zip(*each, strict=True)] for name, each in parts.items()}
    names = [images.names[int(i)] for i in chosen[which]]
    for name, views in found.items():
        for x in views:
            check_finite(x, names, of=name)
    return {name: TwoViews(a, b, chosen[which]) for name, (a, b) in found.items()}


def measure_views(views: TwoViews, *, device: torch.device | str = "cpu") -> Consistency:
    """Both measures. Features are compared by cosine, as for nearest neighbours."""
    a, b = F.normalize(views.a), F.normalize(views.b)
    return Consistency(np.array(list(_agreements(a, b))), _finds(a.to(device), b.to(device)))


def _finds(a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> Float[np.ndarray, "n"]:
    similar = a @ b.T
    own = similar.diagonal().clone()
    similar.fill_diagonal_(-torch.inf)
    return (own > similar.amax(dim=1)).double().cpu().numpy()


def _agreements(a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> Iterator[float]:
    """The agreement of the clusters of `a` and of `b` in each half of the images, each time with a new seed."""
    a, b = _principal_components(a, b)
    clusters = max(2, min(CLUSTERS, len(a) // 2 // EACH))
    for seed, half in enumerate(draw_halves(len(a), count=HALVES)):
        rows = torch.from_numpy(half)
        labels = [k_means(x[rows], clusters, seed=seed)[0] for x in (a, b)]
        yield adjusted_mutual_information(*labels)


def _principal_components(a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> tuple[Tensor, Tensor]:
    both = torch.cat([a, b])
    centred = both - both.mean(dim=0)
    if centred.shape[1] > DIMS:
        values, vectors = torch.linalg.eigh((centred.T @ centred).double())
        centred = centred @ vectors[:, values.argsort(descending=True)[:DIMS]].float()
    return centred[: len(a)], centred[len(a) :]


def compare_without_labels(
    pretrained: Pretrained,
    images: Images,
    others: Mapping[str, Pretrained],
    fixed: Mapping[str, Sequence[Encoder | Pixels]],
    *,
    most: int = IMAGES,
    workers: int,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Comparison:
    """The comparison on views of at most `most` images.

    Args:
        others: baselines, by name; each has its own size and normalization of images.
        fixed: baselines with the size and normalization of the encoder: random encoders of several seeds, pixels.

    Raises:
        DataError: fewer than two images.
    """
    count = min(most, len(images))
    count = count // ROWS * ROWS or count
    if count < 2:
        raise DataError(f"expected at least 2 images, got {count}")
    judged = f"{pretrained.name} (judged)" if pretrained.name in {*others, *fixed} else pretrained.name
    beside: dict[tuple[str, int], Encoder | Pixels] = {
        (name, seed): one for name, seeds in fixed.items() for seed, one in enumerate(seeds)
    }
    groups = [(pretrained, {(judged, 0): pretrained.encoder} | beside)]
    groups += [(one, {(name, 0): one.encoder}) for name, one in others.items()]
    found: dict[str, list[Consistency]] = {}
    used = 0
    for of, encoders in groups:
        named = {f"{name} {seed}": (name, one) for (name, seed), one in encoders.items()}
        views = extract_views(
            {key: one for key, (_, one) in named.items()}, images, of.data, count=count, device=of.device,
            workers=workers, progress=progress,
        )  # fmt: skip
        for key, (name, _) in named.items():
            found.setdefault(name, []).append(measure_views(views[key], device=of.device))
            used = len(views[key].ids)
    split = f"{used:,} of {len(images):,} images, two random views of each"
    return compare_consistency(judged, found, images=used, split=split, notes=notes)


def compare_consistency(
    judged: str, found: Mapping[str, Sequence[Consistency]], *, images: int, split: str, notes: Sequence[str] = ()
) -> Comparison:
    """The comparison of measures: of `judged` and of the baselines, in which several are seeds of one."""
    level, verdicts, differences = level_for(len(found) - 1), {}, {}
    for name, seeds in found.items():
        if name == judged:
            continue
        differences[name] = differences_without_labels(found[judged][0], seeds, level=level)
        verdicts[name] = judge_baseline(
            name, differences[name], deciding=AGREE, images=images, level=level, words=WITHOUT_LABELS
        )
    scores = {
        name: {
            AGREE: [100 * float(one.agree.mean()) for one in seeds],
            FINDS: [100 * float(one.finds.mean()) for one in seeds],
        }
        for name, seeds in found.items()
    }
    return Comparison(
        judged, images, split, level, scores, differences, verdicts, judge_all(verdicts), list(notes), labels=False
    )  # fmt: skip


def differences_without_labels(
    ours: Consistency, seeds: Sequence[Consistency], *, level: float
) -> dict[str, Difference]:
    """Differences of both measures, with paired intervals.

    Of the agreement: mean over the halves, plus and minus t times the standard deviation over the halves, which is that
    of the measure over new sets of twice their size (see bootstrap.py), with the seed of k-means on top. Of the view
    that is found: the paired bootstrap over images, among these images.
    """
    agree = 100 * (ours.agree - np.mean([one.agree for one in seeds], axis=0))
    reach = t_quantile(1 - (1 - level) / 2, len(agree) - 1) * float(agree.std(ddof=1))
    mean = float(agree.mean())
    finds = 100 * (ours.finds - np.mean([one.finds for one in seeds], axis=0))
    low, high = interval(resample_means(finds[None], draw_resamples(len(finds))), level=level)
    return {
        AGREE: Difference(mean, mean - reach, mean + reach, len(finds) if agree.any() else 0),
        FINDS: Difference(float(finds.mean()), low, high, int((finds != 0).sum())),
    }


def t_quantile(p: float, degrees: int) -> float:
    """The quantile of Student's t for p > 0.5, by bisection of its distribution function, to 1e-6."""
    low, high = 0.0, 1e3
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_probability(middle, degrees) < p else (low, middle)
    return (low + high) / 2


def _t_probability(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0: with T = sqrt(degrees) tan(u), the density in u is proportional to cos(u)^(degrees - 1)."""
    u = np.linspace(0, np.pi / 2, 20001)
    density = np.cos(u) ** (degrees - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return 0.5 + 0.5 * float(np.interp(np.arctan(t / np.sqrt(degrees)), u, area / area[-1]))
