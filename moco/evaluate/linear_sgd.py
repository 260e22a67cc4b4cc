"""Linear classification as the papers run it (Sec. 4.1): SGD on augmented images through the frozen encoder."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import Images
from moco.data.sources.images import Subset
from moco.data.sources.labels import require_labels
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import Features, extract, set_eval_mode
from moco.evaluate.linear import ProbeResult, accuracy, hold_out
from moco.evaluate.progress import Progress
from moco.recipe import DataSpec, Jitter, RecipeError, View, unknown
from moco.rng import fold
from moco.schedule import Cosine, Schedule, Steps
from moco.text import first_few, plural

VIEW = View(crop_area=(0.08, 1.0), jitter=Jitter(p=0.0), grey=0.0, blur=0.0, flip=0.5)  # of a training image
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of a sweep: lr for a batch of 256


@dataclass(frozen=True)
class Protocol:
    """SGD with momentum 0.9 and no weight decay; the classifier starts at weights from N(0, 0.01) and bias 0."""

    source: str
    lr: float  # at the start, for a batch of 256; linear in the batch size
    shape: Schedule  # of the lr over `epochs`; starts at 1, changes once an epoch
    epochs: int
    batch_size: int


PROTOCOLS = {
    "v1": Protocol("MoCo v1 and v2: moco/main_lincls.py", 30.0, Steps(1.0, at=(60, 80)), 100, 256),
    "v3-resnet": Protocol("MoCo v3, ResNet-50: moco-v3/main_lincls.py", 0.1, Cosine(1.0), 90, 1024),
    "v3-vit": Protocol("MoCo v3, ViT: moco-v3/CONFIG.md", 3.0, Cosine(1.0), 90, 1024),
}


class Classifiers(nn.Module):
    """L linear classifiers with the same initial weights, in two tensors."""

    def __init__(self, num: int, num_features: int, classes: int, *, seed: int):
        super().__init__()
        rng = torch.Generator().manual_seed(fold(seed))
        self.weight = nn.Parameter(torch.randn(classes, num_features, generator=rng).mul(0.01).repeat(num, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num, 1, classes))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "L N classes"]:
        """The logits of each classifier."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), *x.shape), self.weight.transpose(1, 2))


class EncoderChanged(AssertionError):
    """A frozen encoder has changed."""


@contextmanager
def frozen(encoder: nn.Module, classifier: nn.Module) -> Iterator[None]:
    """While open, only the two tensors of `classifier` train. Afterwards every tensor of `encoder` is compared.

    Raises:
        EncoderChanged: a parameter or buffer has changed, or more or fewer than two tensors would train.
    """
    asked = [(parameter, parameter.requires_grad) for parameter in encoder.parameters()]
    before = {name: tensor.detach().clone() for name, tensor in _tensors(encoder)}
    try:
        encoder.requires_grad_(False)
        training = sum(parameter.requires_grad for one in (encoder, classifier) for parameter in one.parameters())
        if training != 2:
            raise EncoderChanged(
                f"expected only weight and bias of the classifier to train, got {training} trained tensors"
            )
        yield
    finally:
        for parameter, requires_grad in asked:
            parameter.requires_grad_(requires_grad)
    moved = [name for name, tensor in _tensors(encoder) if not torch.equal(tensor, before[name])]
    if moved:
        raise EncoderChanged(
            f"the frozen encoder changed during the probe: {plural(len(moved), 'tensor')} ({first_few(moved)}). "
            "Does a module of it switch to train mode, or update its buffers in eval mode?"
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def probe_sgd(
    encoder: Encoder | Pixels,
    train: Images,
    test: Images,
    data: DataSpec,
    *,
    protocol: str = "v1",
    lr: float | Literal["sweep"] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device,
    workers: int = 0,
    quarantine: Quarantine | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """A paper's linear classification protocol, with the accuracy after the last epoch.

    Two differences from the papers' code: an epoch drops its last, smaller mini-batch, and no epoch is chosen on the
    test images.

    Args:
        lr: for a batch of 256; None: the protocol's, for ImageNet. "sweep" trains a classifier with each of RATES in
            one pass over four fifths of the training images, and chooses on the last fifth.
        epochs: the schedule is scaled to them.

    Raises:
        RecipeError: an unknown protocol, or a learning rate at which the classifier diverged.
        DataError: no labels, or too few images. EncoderChanged: the encoder has changed.
    """
    rules, progress = _protocol(protocol), progress or Progress()
    rates = _learning_rates(rules.lr if lr is None else lr)
    quarantine = Quarantine(None, None, len(train) + len(test)) if quarantine is None else quarantine
    fitted, held_out = _split_for_sweep(require_labels(train), seed) if lr == "sweep" else (require_labels(train), None)
    require_labels(test)
    batch_size, epochs = min(batch_size or rules.batch_size, len(fitted)), epochs or rules.epochs
    loader = ViewLoader(
        fitted, data.model_copy(update={"views": (VIEW,)}), batch_size=batch_size, seed=seed,
        steps=range(epochs * (len(fitted) // batch_size)), workers=workers, device=device, quarantine=quarantine,
    )  # fmt: skip
    classifiers = Classifiers(len(rates), encoder.num_features, len(train.classes), seed=seed).to(device)
    progress.stage(f"linear classifier, {protocol}", len(loader), "steps")
    features = partial(
        extract, encoder, data=data, device=device, workers=workers, quarantine=quarantine, progress=progress
    )
    with frozen(encoder, classifiers):
        _train(classifiers, encoder, loader, rules, rates, epochs=epochs, progress=progress)
        chosen_on, answers = None if held_out is None else features(held_out), features(test)
    return _best_probe(classifiers, rates, chosen_on, answers)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise RecipeError(unknown("protocol", name, list(PROTOCOLS)))
    return PROTOCOLS[name]


def _best_probe(
    classifiers: Classifiers, rates: tuple[float, ...], held_out: Features | None, test: Features
) -> ProbeResult:
    """The predictions of the classifier that is best on `held_out`; of the first one without held-out images.

    Raises:
        RecipeError: the classifier diverged.
    """
    tried = {} if held_out is None else {rate: _score(classifiers, i, held_out) for i, rate in enumerate(rates)}
    best = max(range(len(rates)), key=lambda i: tried.get(rates[i], 0.0))
    if not _is_finite(classifiers, best):
        raise RecipeError(f"the linear classifier diverged at lr {rates[best]} for a batch of 256: use lr='sweep'")
    predictions = _predict(classifiers, best, test)
    return ProbeResult(predictions, accuracy(predictions, test.known_labels()), rates[best], tried)


def _learning_rates(lr: float | Literal["sweep"]) -> tuple[float, ...]:
    if lr == "sweep":
        return RATES
    if not lr > 0:
        raise RecipeError(f"lr must be above 0, or 'sweep', got {lr}")
    return (lr,)


def _split_for_sweep(train: Images, seed: int) -> tuple[Images, Images]:
    """The training images to fit on, and those to choose the learning rate on."""
    labels = np.asarray(train.labels)
    fitted, held = (Subset(train, rows.numpy()) for rows in hold_out(torch.from_numpy(labels), seed=seed))
    return fitted, held


def _train(
    classifiers: Classifiers,
    encoder: Encoder | Pixels,
    loader: ViewLoader,
    protocol: Protocol,
    rates: tuple[float, ...],
    *,
    epochs: int,
    progress: Progress,
) -> None:
    labels = torch.as_tensor(loader.images.labels, device=loader.device)
    # without weight decay, a loss times r has the effect of a learning rate times r
    per_loss = torch.tensor(rates, device=loader.device) * loader.sampler.batch_size / 256
    optimizer = torch.optim.SGD(classifiers.parameters(), lr=1.0, momentum=0.9)
    for step, (views, ids) in enumerate(loader):
        epoch = step // loader.sampler.steps_per_epoch
        optimizer.param_groups[0]["lr"] = protocol.shape(epoch * protocol.epochs / epochs, protocol.epochs)
        with set_eval_mode(encoder):
            x = encoder.features(views[0]).float()
        logits = classifiers(x)
        losses = F.cross_entropy(logits.flatten(0, 1), labels[ids].repeat(len(rates)), reduction="none")
        optimizer.zero_grad()
        (losses.view(len(rates), -1).mean(dim=1) * per_loss).sum().backward()
        optimizer.step()
        progress.add()


def _is_finite(classifiers: Classifiers, index: int) -> bool:
    return all(math.isfinite(part[index].sum().item()) for part in (classifiers.weight, classifiers.bias))


@torch.no_grad()
def _predict(classifiers: Classifiers, index: int, features: Features) -> Tensor:
    weight, bias = classifiers.weight[index].cpu(), classifiers.bias[index, 0].cpu()
    return F.linear(features.x, weight, bias).argmax(dim=1)


def _score(classifiers: Classifiers, index: int, features: Features) -> float:
    """Accuracy [percent]; of a classifier that diverged, less than 0."""
    if not _is_finite(classifiers, index):
        return -1.0
    return accuracy(_predict(classifiers, index, features), features.known_labels())
