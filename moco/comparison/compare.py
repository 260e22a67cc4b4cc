"""`moco compare`: an encoder beside baselines on the same labelled images, with paired intervals and a verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from moco.comparison.bootstrap import Resamples, draw_resamples, interval, noise_of_halves, resample_means
from moco.comparison.measures import KNN, Measure, Measured, measure_encoder
from moco.comparison.on_machine import check_on_machine
from moco.comparison.result import Comparison
from moco.comparison.unlabelled import compare_without_labels
from moco.comparison.verdict import Difference, judge_all, judge_baseline, level_for
from moco.data.sources.images import DataError
from moco.data.sources.labels import require_labels
from moco.data.sources.open import Sources, open_images
from moco.data.sources.split import split_sources
from moco.device import workers_for
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels, random_encoder
from moco.evaluate.cache import FeatureCache, cache_of
from moco.evaluate.evaluate import PIXELS, RANDOM, subjects
from moco.evaluate.features import Pretrained, load_pretrained
from moco.evaluate.progress import Progress
from moco.evaluate.protocols import Subjects
from moco.recipe import RecipeError
from moco.weights.encoder_folder import Weights

BASELINES = ("random", "pixels")
RANDOM_ENCODERS = 3  # seeds


def compare(
    weights: Weights,
    data: Sources,
    *,
    baselines: Sequence[str] = BASELINES,
    test: Sources | None = None,
    labels: bool = True,
    architecture: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    cached: bool = True,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Comparison:
    """Is the encoder better than its baselines on these images? See docs/compare.md for the rules.

    Args:
        baselines: "random" (the same network with random parameters), "pixels", torchvision/NAME or timm/NAME on this
            machine, or paths of weights. Each has its own size and normalization of images.
        test: labelled images to test on; None: test images inside of `data`, or a fifth of each class.
        labels: use them if there are any. Without labels, only measures of two views of the images are compared.
        cached: store features in the folder of the weights, if they are a folder, and reuse them.

    Raises:
        RecipeError: no baseline, one twice, or one that is not on this machine; weights that cannot be used.
        DataError: no images, `test` without labels, or the same files among training and test images.
    """
    if not baselines or len(set(baselines)) < len(baselines):
        raise RecipeError(f"expected at least one baseline, each once, and got: {', '.join(baselines) or 'none'}")
    files = [name for name in baselines if name not in BASELINES]
    for name in files:
        check_on_machine(name)
    progress = progress or Progress()
    progress.stage("loading the encoders")
    pretrained = load_pretrained(weights, architecture=architecture, device=device)
    others = {name: load_pretrained(name, device=device) for name in files}
    missing = "labels were not asked for" if not labels else "" if test is not None else why_no_labels(data)
    if missing:
        return compare_without_labels(
            pretrained, open_images(data), others, _make_fixed(pretrained, baselines), notes=[missing],
            workers=workers_for(workers), progress=progress,
        )  # fmt: skip
    return compare_encoders(
        pretrained, data, others, baselines, test=test, random_encoders=RANDOM_ENCODERS, workers=workers,
        max_bad=max_bad, cache=cache_of(weights, say) if cached else None, progress=progress,
    )  # fmt: skip


def _make_fixed(pretrained: Pretrained, baselines: Sequence[str]) -> dict[str, list[Encoder | Pixels]]:
    """The baselines that need no weights: random encoders of the same network, and raw pixels."""
    fixed: dict[str, list[Encoder | Pixels]] = {}
    if "random" in baselines:
        fixed["random"] = [random_encoder(pretrained.encoder, seed=seed) for seed in range(RANDOM_ENCODERS)]
    if "pixels" in baselines:
        fixed["pixels"] = [Pixels(pretrained.data).to(pretrained.device)]
    return fixed


def why_no_labels(data: Sources) -> str:
    """Why these images have no labels; empty if they have. Raises DataError for classes that are names of splits."""
    train = split_sources(data).train
    if train.labels is not None:
        return ""
    try:
        require_labels(train)
    except DataError as error:
        return str(error)
    return ""


def compare_encoders(
    pretrained: Pretrained,
    data: Sources,
    others: Mapping[str, Pretrained],
    baselines: Sequence[str],
    *,
    test: Sources | None = None,
    random_encoders: int,
    measured_by: Measure = measure_encoder,
    workers: int | None = None,
    max_bad: float | None = None,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """As `compare`, with encoders that are loaded.

    Args:
        others: the baselines other than "random" and "pixels", by name.
    """
    among = subjects(
        pretrained, data, test=test, others={f"baseline {name}": one for name, one in others.items()},
        random_encoders=random_encoders if "random" in baselines else 0, workers=workers, max_bad=max_bad, cache=cache,
        progress=progress,
    )  # fmt: skip
    if "random" in baselines and RANDOM not in among.rows:
        raise RecipeError(f"the baseline random is not possible. {' '.join(among.notes)}")
    named = {f"baseline {name}": name for name in others} | {PIXELS: "pixels"}
    named |= {name: "random" for name in among.rows if name.startswith(RANDOM)}
    named = {row: name for row, name in named.items() if name in baselines}
    return compare_features(among, named, baselines, measured_by=measured_by)


def compare_features(
    among: Subjects, named: Mapping[str, str], baselines: Sequence[str], *, measured_by: Measure = measure_encoder
) -> Comparison:
    """The comparison of features.

    Args:
        named: row of `among` -> baseline. Several rows of one baseline are seeds; their mean is compared.
    """
    found: dict[str, Measured] = {}
    notes = dict.fromkeys(among.notes)
    for row in (among.judged, *named):
        among.progress.stage(f"measures of {row}")
        subject = among.rows[row]
        found[row] = measured_by(subject.train, subject.test, device=among.device)
        notes |= dict.fromkeys(found[row].notes)
    images = len(among.rows[among.judged].test.x)
    seeds = {name: [found[row] for row, of in named.items() if of == name] for name in baselines}
    level, verdicts, differences = level_for(len(baselines)), {}, {}
    for name, differing in differences_of(found[among.judged], seeds, level=level).items():
        differences[name] = differing
        verdicts[name] = judge_baseline(name, differing, deciding=KNN, images=images, level=level)
    judged = f"{among.judged} (judged)" if among.judged in baselines else among.judged
    everyone = {judged: [found[among.judged]]} | seeds
    scores = {name: {key: _scores(ones, key) for key in ones[0].correct} for name, ones in everyone.items()}
    return Comparison(
        judged, images, among.split.how, level, scores, differences, verdicts, judge_all(verdicts), list(notes)
    )


def _scores(seeds: Sequence[Measured], key: str) -> list[float]:
    """In percent, one for each seed."""
    return [100 * float(one.correct[key].mean()) for one in seeds]


def differences_of(
    ours: Measured, baselines: Mapping[str, Sequence[Measured]], *, level: float
) -> dict[str, dict[str, Difference]]:
    """Differences by baseline and measure, all from the same resamples of the test and training images.

    Training images are resampled for 20-NN, which decides, and as draws for few labels. The linear classifier would
    have to be fitted for each half: its interval is for these training images, so it takes a verdict back too easily.
    """
    n, draws = next(iter(ours.correct.values())).shape[1], max(len(one) for one in ours.correct.values())
    resamples = draw_resamples(n, draws)
    found: dict[str, dict[str, Difference]] = {}
    for name, seeds in baselines.items():
        halves = ours.of_halves - np.mean([one.of_halves for one in seeds], axis=0)
        noise = {KNN: noise_of_halves(100 * halves, resamples)}
        found[name] = {}
        for key, values in ours.correct.items():
            apart = 100 * (values - np.mean([one.correct[key] for one in seeds], axis=0))
            found[name][key] = _difference(apart, resamples, noise.get(key), level=level)
    return found


def _difference(
    values: Float[np.ndarray, "d n"], resamples: Resamples, noise: Float[np.ndarray, "R"] | None, *, level: float
) -> Difference:
    """One difference with its interval.

    Args:
        values: encoder minus baseline, of each draw and test image [points].
        noise: what the choice of training images adds in each resample [points].
    """
    shares = resamples.draws if len(values) > 1 else np.ones_like(resamples.draws[:, :1])
    means = resample_means(values, replace(resamples, draws=shares))
    low, high = interval(means if noise is None else means + noise, level=level)
    return Difference(float(values.mean()), low, high, int((values != 0).any(axis=0).sum()))
