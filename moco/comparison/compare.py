"""`moco compare`: an encoder beside baselines on the same labelled images, with paired intervals and a verdict."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from moco.comparison.bootstrap import Resamples, draw_resamples, interval, resampled_means
from moco.comparison.measures import KNN, Correct, Measure, measure
from moco.comparison.on_machine import check_on_machine
from moco.comparison.result import Comparison
from moco.comparison.verdict import Difference, judge_all, judge_baseline, level_for
from moco.data.sources.open import Sources
from moco.evaluate.cache import FeatureCache, cache_of
from moco.evaluate.evaluate import PIXELS, RANDOM, subjects
from moco.evaluate.features import Pretrained, load
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
    architecture: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    cached: bool = True,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Comparison:
    """Is the encoder better than its baselines on these labelled images? See docs/compare.md for the rule.

    Args:
        baselines: "random" (the same network with random parameters), "pixels", torchvision/NAME or timm/NAME on this
            machine, or paths of weights. Each has its own size and normalization of images.
        test: labelled images to test on; None: test images inside of `data`, or a fifth of each class.
        cached: store features in the folder of the weights, if they are a folder, and reuse them.

    Raises:
        RecipeError: no baseline, one twice, or one that is not on this machine; weights that cannot be used.
        DataError: no labels, or the same files among training and test images.
    """
    if not baselines or len(set(baselines)) < len(baselines):
        raise RecipeError(f"expected at least one baseline, each once, and got: {', '.join(baselines) or 'none'}")
    files = [name for name in baselines if name not in BASELINES]
    for name in files:
        check_on_machine(name)
    progress = progress or Progress()
    progress.stage("loading the encoders")
    pretrained = load(weights, architecture=architecture, device=device)
    others = {name: load(name, device=device) for name in files}
    return compare_encoders(
        pretrained, data, others, baselines, test=test, random_encoders=RANDOM_ENCODERS, workers=workers,
        max_bad=max_bad, cache=cache_of(weights, say) if cached else None, progress=progress,
    )  # fmt: skip


def compare_encoders(
    pretrained: Pretrained,
    data: Sources,
    others: Mapping[str, Pretrained],
    baselines: Sequence[str],
    *,
    test: Sources | None = None,
    random_encoders: int,
    measured_by: Measure = measure,
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
    among: Subjects, named: Mapping[str, str], baselines: Sequence[str], *, measured_by: Measure = measure
) -> Comparison:
    """The comparison of features.

    Args:
        named: row of `among` -> baseline. Several rows of one baseline are seeds; their mean is compared.
    """
    correct: dict[str, Correct] = {}
    notes = dict.fromkeys(among.notes)
    for row in (among.judged, *named):
        among.progress.stage(f"measures of {row}")
        subject = among.rows[row]
        correct[row], more = measured_by(subject.train, subject.test, device=among.device)
        notes |= dict.fromkeys(more)
    images = len(among.rows[among.judged].test.x)
    seeds = {name: [correct[row] for row, of in named.items() if of == name] for name in baselines}
    level, verdicts, differences = level_for(len(baselines)), {}, {}
    for name, differing in differences_of(correct[among.judged], seeds, level=level).items():
        differences[name] = differing
        verdicts[name] = judge_baseline(name, differing, deciding=KNN, images=images, level=level)
    judged = f"{among.judged} (judged)" if among.judged in baselines else among.judged
    everyone = {judged: [correct[among.judged]]} | seeds
    scores = {name: {key: _scores(ones, key) for key in ones[0]} for name, ones in everyone.items()}
    return Comparison(
        judged, images, among.split.how, level, scores, differences, verdicts, judge_all(verdicts), list(notes)
    )


def _scores(seeds: Sequence[Correct], key: str) -> list[float]:
    """In percent, one for each seed."""
    return [100 * float(one[key].mean()) for one in seeds]


def differences_of(
    ours: Correct, baselines: Mapping[str, Sequence[Correct]], *, level: float
) -> dict[str, dict[str, Difference]]:
    """Differences by baseline and measure, all from the same resamples of the test images."""
    n, draws = next(iter(ours.values())).shape[1], max(len(one) for one in ours.values())
    resamples = draw_resamples(n, draws)
    found: dict[str, dict[str, Difference]] = {}
    for name, seeds in baselines.items():
        theirs = {key: np.mean([one[key] for one in seeds], axis=0) for key in ours}
        found[name] = {key: _difference(ours[key], theirs[key], resamples, level=level) for key in ours}
    return found


def _difference(
    ours: Float[np.ndarray, "d n"], theirs: Float[np.ndarray, "d n"], resamples: Resamples, *, level: float
) -> Difference:
    values = 100 * (ours - theirs)
    of_draws = resamples if len(values) > 1 else Resamples(resamples.images, np.ones_like(resamples.draws[:, :1]))
    low, high = interval(resampled_means(values, of_draws), level=level)
    return Difference(float(values.mean()), low, high, int((values != 0).any(axis=0).sum()))
