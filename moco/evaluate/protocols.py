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
from moco.data.sources.labels import labelled
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import Features, evaluating, extract
from moco.evaluate.linear import Probe, accuracy, hold_out
from moco.evaluate.progress import Progress
from moco.recipe import DataSpec, Jitter, RecipeError, View, unknown
from moco.rng import fold
from moco.schedule import Cosine, Schedule, Steps

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


class Heads(nn.Module):
    """L linear classifiers side by side, in two tensors; they begin alike."""

    def __init__(self, num: int, num_features: int, classes: int, *, seed: int):
        super().__init__()
        rng = torch.Generator().manual_seed(fold(seed))
        self.weight = nn.Parameter(torch.randn(classes, num_features, generator=rng).mul(0.01).repeat(num, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num, 1, classes))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "L N classes"]:
        """The logits of each."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), *x.shape), self.weight.transpose(1, 2))


class Moved(AssertionError):
    """A frozen encoder that did not stay as it was."""


@contextmanager
def frozen(encoder: nn.Module, classifier: nn.Module) -> Iterator[None]:
    """While open, nothing but the two tensors of `classifier` trains; then every tensor of `encoder` is compared.

    Raises:
        Moved: a parameter or buffer is not bit for bit what it was, or another number of tensors would train.
    """
    asked = [(parameter, parameter.requires_grad) for parameter in encoder.parameters()]
    before = {name: tensor.detach().clone() for name, tensor in _tensors(encoder)}
    try:
        encoder.requires_grad_(False)
        training = sum(parameter.requires_grad for one in (encoder, classifier) for parameter in one.parameters())
        if training != 2:
            raise Moved(f"weight and bias of the classifier must train and nothing else, and {training} tensors do")
        yield
    finally:
        for parameter, requires_grad in asked:
            parameter.requires_grad_(requires_grad)
    moved = [name for name, tensor in _tensors(encoder) if not torch.equal(tensor, before[name])]
    if moved:
        raise Moved(
            f"the frozen encoder changed during the probe: {len(moved)} tensors, such as {', '.join(moved[:3])}. "
            "Does a part of it go back to train mode, or update itself in eval mode?"
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
) -> Probe:
    """A paper's linear classification protocol, with the accuracy after the last epoch.

    Unlike in the papers' code the last, smaller mini-batch of an epoch is dropped, and the epoch that is best on the
    test images is not looked for.

    Args:
        lr: for a batch of 256; None is the protocol's, which was chosen for ImageNet. "sweep" trains a classifier with
            each of RATES on four fifths of the training images, in one pass; the last fifth chooses.
        epochs: the schedule is stretched or squeezed over them.

    Raises:
        RecipeError: an unknown protocol, or a learning rate at which the classifier diverged.
        DataError: no labels, or too few images. Moved: the encoder did not stay as it was.
    """
    if protocol not in PROTOCOLS:
        raise RecipeError(unknown("protocol", protocol, list(PROTOCOLS)))
    labels = labelled(train).labels
    labelled(test)
    assert labels is not None
    rules = PROTOCOLS[protocol]
    rates = _rates(rules.lr if lr is None else lr)
    quarantine = Quarantine(None, None, len(train) + len(test)) if quarantine is None else quarantine
    fitted, held = _sweep_split(train, labels, seed) if lr == "sweep" else (train, None)
    batch_size, epochs = min(batch_size or rules.batch_size, len(fitted)), epochs or rules.epochs
    loader = ViewLoader(
        fitted, data.model_copy(update={"views": (VIEW,)}), batch_size=batch_size, seed=seed,
        steps=range(epochs * (len(fitted) // batch_size)), workers=workers, device=device, quarantine=quarantine,
    )  # fmt: skip
    heads = Heads(len(rates), encoder.num_features, len(train.classes), seed=seed).to(device)
    progress = progress or Progress()
    progress.stage(f"linear classifier, {protocol}", len(loader), "steps")
    features = partial(
        extract, encoder, data=data, device=device, workers=workers, quarantine=quarantine, progress=progress
    )
    with frozen(encoder, heads):
        _train(
            heads, encoder, loader, rules.shape, rates, epochs=epochs, schedule_epochs=rules.epochs, progress=progress
        )
        seen_held = None if held is None else features(held)
        seen = features(test)
    tried = {} if seen_held is None else {rate: _score(heads, which, seen_held) for which, rate in enumerate(rates)}
    best = max(range(len(rates)), key=lambda which: tried.get(rates[which], 0.0))
    if not _whole(heads, best):
        raise RecipeError(f"the linear classifier diverged at lr {rates[best]} for a batch of 256: use lr='sweep'")
    predictions = _predict(heads, best, seen)
    return Probe(predictions, accuracy(predictions, seen.known_labels()), rates[best], tried)


def _rates(lr: float | Literal["sweep"]) -> tuple[float, ...]:
    if lr == "sweep":
        return RATES
    if not lr > 0:
        raise RecipeError(f"lr must be above 0, or 'sweep', got {lr}")
    return (lr,)


def _sweep_split(train: Images, labels: np.ndarray, seed: int) -> tuple[Images, Images]:
    """The training images to fit on, and those that choose."""
    fitted, held = (Subset(train, rows.numpy()) for rows in hold_out(torch.from_numpy(labels), seed=seed))
    return fitted, held


def _train(
    heads: Heads,
    encoder: Encoder | Pixels,
    loader: ViewLoader,
    shape: Schedule,
    rates: tuple[float, ...],
    *,
    epochs: int,
    schedule_epochs: int,
    progress: Progress | None = None,
) -> None:
    labels = torch.as_tensor(loader.images.labels, device=loader.device)
    # a loss times r, without weight decay, moves its classifier as a learning rate times r does
    per_loss = torch.tensor(rates, device=loader.device) * loader.sampler.batch_size / 256
    optimizer = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=0.9)
    for step, (views, ids) in enumerate(loader):
        epoch = step // loader.sampler.steps_per_epoch
        optimizer.param_groups[0]["lr"] = shape(epoch * schedule_epochs / epochs, schedule_epochs)
        with evaluating(encoder):
            x = encoder.features(views[0]).float()
        logits = heads(x)
        losses = F.cross_entropy(logits.flatten(0, 1), labels[ids].repeat(len(rates)), reduction="none")
        optimizer.zero_grad()
        (losses.view(len(rates), -1).mean(dim=1) * per_loss).sum().backward()
        optimizer.step()
        if progress is not None:
            progress.add()


def _whole(heads: Heads, which: int) -> bool:
    return all(math.isfinite(part[which].sum().item()) for part in (heads.weight, heads.bias))


@torch.no_grad()
def _predict(heads: Heads, which: int, features: Features) -> Tensor:
    weight, bias = heads.weight[which].cpu(), heads.bias[which, 0].cpu()
    return F.linear(features.x, weight, bias).argmax(dim=1)


def _score(heads: Heads, which: int, features: Features) -> float:
    """Accuracy [percent]; of a classifier that diverged, less than any."""
    if not _whole(heads, which):
        return -1.0
    return accuracy(_predict(heads, which, features), features.known_labels())
