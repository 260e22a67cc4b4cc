"""lightly's MoCo, built from its public parts as in its documentation."""

import copy
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.measure import Work


def lightly_name() -> str:
    return f"lightly {version('lightly')}"


def lightly_tutorial(x_q: Tensor, x_k: Tensor, *, size: int, splits: int) -> Work:
    """A step as in the tutorial on MoCo: ResNet-18 for small images, split BN, shuffled keys, a memory bank."""
    return _lightly(x_q, x_k, size=size, splits=splits, momentum=0.9, weight_decay=5e-4)


def lightly_example(x_q: Tensor, x_k: Tensor, *, size: int) -> Work:
    """A step as in examples/pytorch/moco.py, with the tutorial's network: plain BN, nothing shuffled, plain SGD."""
    return _lightly(x_q, x_k, size=size, splits=0, momentum=0.0, weight_decay=0.0)


def _lightly(x_q: Tensor, x_k: Tensor, *, size: int, splits: int, momentum: float, weight_decay: float) -> Work:
    from lightly.loss import NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum

    resnet = ResNetGenerator("resnet-18", 1, num_splits=splits)
    trunk = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = nn.Sequential(trunk, MoCoProjectionHead(512, 512, 128))
    keys = copy.deepcopy(encoder)
    deactivate_requires_grad(keys)
    criterion = NTXentLoss(temperature=0.1, memory_bank_size=(size, 128))
    optimizer = torch.optim.SGD(encoder.parameters(), lr=6e-2, momentum=momentum, weight_decay=weight_decay)

    def step() -> float:
        update_momentum(encoder, keys, m=0.99)
        query = encoder(x_q)
        with torch.no_grad():
            if splits:
                shuffled, order = batch_shuffle(x_k)
                key = batch_unshuffle(keys(shuffled), order)
            else:
                key = keys(x_k)
        loss = criterion(query, key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
