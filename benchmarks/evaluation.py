"""Evaluation: the kNN classifier, and the features of a folder of images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from benchmarks.measure import Result, Row, Work, absent, installed, interleaved, result
from benchmarks.pictures import jpegs
from moco import recipes
from moco.data.augment.crop import eval_crop
from moco.data.augment.normalize import normalize
from moco.data.sources.demo import demo_data
from moco.data.sources.folder import find_images
from moco.encoders import Encoder, build
from moco.evaluate.features import Features, batch_for, load_pretrained
from moco.evaluate.knn import knn
from moco.recipe import DataSpec, EncoderSpec, Recipe
from moco.weights.encoder_folder import save_encoder

BANK, QUERIES, WIDTH, CLASSES = 20_000, 2_000, 512, 10
K, TEMPERATURE, AT_ONCE = 200, 0.1, 512  # AT_ONCE: queries per block, in the reference and the lower bound


def features(count: int, seed: int) -> Features:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=rng)
    x = torch.randn(count, WIDTH, generator=rng) + torch.eye(CLASSES, WIDTH)[labels]
    return Features(x, labels, [str(i) for i in range(CLASSES)], [str(i) for i in range(count)], torch.arange(count))


def usual_knn(train: Features, test: Features) -> float:
    """The usual kNN: similarities of a block of queries to the whole bank, top k, a vote with one-hot labels."""
    labels = train.known_labels()
    bank, correct = F.normalize(train.x, dim=1).t().contiguous(), 0
    for some, truth in zip(test.x.split(AT_ONCE), test.known_labels().split(AT_ONCE), strict=True):
        weights, places = torch.mm(F.normalize(some, dim=1), bank).topk(K, dim=-1)
        votes = torch.zeros(len(some) * K, CLASSES)
        votes.scatter_(1, labels[places].view(-1, 1), 1.0)
        scores = (votes.view(len(some), K, CLASSES) * (weights / TEMPERATURE).exp().unsqueeze(-1)).sum(dim=1)
        correct += int((scores.argsort(dim=-1, descending=True)[:, 0] == truth).sum())
    return 100 * correct / len(test.x)


def sklearn_knn(train: Features, test: Features) -> Work:
    from sklearn.neighbors import KNeighborsClassifier

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / TEMPERATURE)

    def work() -> float:
        classifier: Any = KNeighborsClassifier(K, metric="cosine", algorithm="brute", weights=cast("Any", weights))
        classifier.fit(train.x.numpy(), train.known_labels().numpy())
        return classifier.score(test.x.numpy(), test.known_labels().numpy())

    return work


def neighbours(rounds: int) -> Iterator[Result]:
    """kNN. Lower bound: the product of queries and bank."""
    train, test = features(BANK, 0), features(QUERIES, 1)
    columns = train.x.T
    works: dict[str, Work] = {
        "ours": lambda: knn(train, test, k=K, temperature=TEMPERATURE),
        "usual": lambda: usual_knn(train, test),
        "lower_bound": lambda: [some @ columns for some in test.x.split(AT_ONCE)],
    }
    if installed("sklearn"):
        works["scikit-learn"] = sklearn_knn(train, test)
    times = interleaved(works, rounds=rounds)
    yield result(
        "knn/20000", times["ours"], times["usual"], lower_bound=times["lower_bound"],
        against="all similarities of 512 queries, one-hot votes; lower bound: the product",
    )  # fmt: skip
    if "scikit-learn" in times:
        yield result(
            "knn/20000/scikit-learn", times["ours"], times["scikit-learn"], against="scikit-learn, brute force"
        )
    else:
        yield absent("knn/20000/scikit-learn", "scikit-learn")


def usual_features(encoder: Encoder, folder: Path, data: DataSpec) -> Tensor:
    """torchvision's transforms on Pillow, an ImageFolder, a DataLoader."""
    transform = T.Compose(
        [T.Resize(data.eval_resize), T.CenterCrop(data.size), T.ToTensor(), T.Normalize(data.mean, data.std)]
    )
    loader = torch.utils.data.DataLoader(ImageFolder(str(folder), transform), batch_size=batch_for(data))
    encoder.eval()
    with torch.no_grad():
        return torch.cat([encoder.features(x) for x, _ in loader])


def embedding(name: str, recipe: Recipe, folder: Path, rounds: int) -> Result:
    """`moco.load`, then all images of a folder, in one thread. Lower bound: the network alone, on ready batches."""
    torch.manual_seed(0)
    usual = build(recipe.encoder, size=recipe.data.size)
    with tempfile.TemporaryDirectory() as weights:
        save_encoder(Path(weights), usual, recipe=recipe, facts={})
        ours = load_pretrained(weights, device="cpu")
    images, data = find_images([folder]), recipe.data
    crops = torch.stack([torch.from_numpy(eval_crop(images.read(i), data)) for i in range(len(images))])
    ready = normalize(crops, mean=data.mean, std=data.std).split(batch_for(data))
    works: dict[str, Work] = {
        "ours": lambda: ours.embed(folder, workers=0),
        "usual": lambda: usual_features(usual, folder, data),
        "lower_bound": lambda: [ours.features(x) for x in ready],
    }
    times = interleaved(works, rounds=rounds)
    what = f"{len(images):,} images by ImageFolder, Pillow, DataLoader; lower bound: our network alone"
    return result(name, times["ours"], times["usual"], lower_bound=times["lower_bound"], against=what)


def embed_demo(rounds: int) -> Iterator[Result]:
    yield embedding("embed/demo", recipes.named("demo"), demo_data() / "test", rounds)


def embed_photos(rounds: int) -> Iterator[Result]:
    recipe = recipes.named("moco_v2_r50").but("embed", {"encoder": EncoderSpec(name="resnet18")})
    with tempfile.TemporaryDirectory() as folder:
        yield embedding("embed/resnet18-224", recipe, jpegs(Path(folder), 64), rounds)


ROWS = [
    Row("knn/20000", neighbours),
    Row("embed/demo", embed_demo),
    Row("embed/resnet18-224", embed_photos, slow=True),
]
