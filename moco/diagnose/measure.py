"""Measure the networks of a run on its probe set. Changes nothing: no weight, no statistic, no random number."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from moco.diagnose import signals
from moco.diagnose.networks import ProbeNetworks
from moco.diagnose.probe import ProbeSet
from moco.distributed import world_size
from moco.method import Contrast, MemoryBank, MomentumEncoder, Queue
from moco.method.batchnorm import SyncBatchNorm, frozen_statistics, one_group
from moco.method.contrast import unit
from moco.recipe import Recipe
from moco.rng import fold

DRAWS = 4  # of the images whose patches are measured
CLUSTERS = 20
EACH = 16  # images for each cluster, at least


@dataclass(frozen=True)
class Measurement:
    """The signals at one step. None: does not apply, or not measured.

    Attributes:
        probe: images in the probe set.
        images: images in the data.
        distinct: different pictures among them; see `Probe.distinct`.
        blank: share of images of a single colour.
        dim: length of an embedding.
        spread: of the embeddings of the queries; see `signals.spread`.
        rank: effective rank of the embeddings of the queries.
        feature_rank: effective rank of the pooled features.
        lidar: of the embeddings of both views.
        clusters: agreement (AMI) of k-means clusterings of the features of both views.
        agreement: mean cosine between query and key of an image.
        found: share of queries that are closer to their own key than to the key of any other image of the probe.
        own, apart, leak_error: the same with BN statistics as in training, and with the BN statistics of each key
            from other images; and the standard error of the difference.
        stored, fresh, stale_error: share of queries that are closer to their own key than to so many keys of other
            images from the queue, and than to as many new keys; and the standard error of the difference.
        follows: mean cosine between the embeddings of a view by f_q and by f_k.
        steady: mean cosine between the embedding of a view with BN's running statistics and with batch statistics.
        update: |change of the weights of f_q| / |weights| in one step.
        keys: keys that a query is compared with.
        own_negatives: how many of them show the query's own picture.
        patch_rank, patch_rank_error: effective rank of the patches of feature maps, mean over four draws of images; and
            its standard error.
        patch_separability: separability of the patches into clusters.
    """

    probe: int
    images: int
    distinct: float
    blank: float
    dim: int
    spread: float
    rank: float
    feature_rank: float
    lidar: float
    clusters: float
    agreement: float
    found: float
    own: float | None
    apart: float | None
    leak_error: float | None
    stored: float | None
    fresh: float | None
    stale_error: float | None
    follows: float | None
    steady: float | None
    update: float | None
    keys: int
    own_negatives: float
    patch_rank: float | None
    patch_rank_error: float | None
    patch_separability: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: rounded to 6 digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")


@contextmanager
def preserve_networks(contrast: Contrast) -> Iterator[None]:
    """While open: no gradients, running statistics fixed. Afterwards modes and random numbers are as before."""
    modes = [(part, part.training) for part in contrast.modules()]
    devices = {parameter.device for parameter in contrast.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(0)  # for dropout and the like, in train mode
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


def measure_signals(
    contrast: Contrast,
    probe: ProbeSet,
    *,
    batch: int,
    group: int,
    update: float | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Measurement:
    """The signals of the networks on the probe set.

    Args:
        batch: images in a mini-batch, over all ranks.
        group: how many of them share their BN statistics in training.
        update: see `Measurement`.
        precision: context of the forward passes, as in training.
    """
    with preserve_networks(contrast), precision():
        networks = ProbeNetworks(contrast, probe)
        contrast.eval()
        features, embeddings = networks.features(0)
        other, other_embeddings = networks.features(1)
        z, k = networks.with_predictor(embeddings), networks.keys(other_embeddings)
        patches = networks.patches()
        contrast.train()
        with frozen_statistics(contrast), one_group(contrast):
            parts = _with_batch_statistics(networks, z, batch=batch, size=group)
        follows = (
            signals.mean_cosine(other_embeddings, k) if isinstance(contrast.key_encoder, MomentumEncoder) else None
        )
    count = len(probe)
    clusters = max(2, min(CLUSTERS, count // EACH))
    labels = [signals.k_means(x, clusters)[0] for x in (features, other)]
    keys, kind = _dictionary(contrast, batch)
    ids = probe.ids.to(z.device)
    return Measurement(
        probe=count, images=probe.images, distinct=probe.distinct, blank=probe.blank,
        dim=z.shape[1], spread=signals.spread(z), rank=signals.effective_rank(z),
        feature_rank=signals.effective_rank(features), lidar=signals.lidar(unit(embeddings), unit(other_embeddings)),
        clusters=signals.adjusted_mutual_information(*labels), agreement=signals.mean_cosine(z, k),
        found=signals.finds_own_key(z, k, ids, k, ids).double().mean().item(),
        follows=follows, update=update, keys=keys,
        own_negatives=signals.own_negatives(keys, probe.images, probe.same, of_dictionary=kind),
        **parts, **_of_patches(patches),
    )  # fmt: skip


def _of_patches(patches: Float[Tensor, "m D"] | None) -> dict[str, float | None]:
    if patches is None:
        return dict.fromkeys(("patch_rank", "patch_rank_error", "patch_separability"))
    ranks = torch.tensor([signals.effective_rank(draw) for draw in patches.chunk(DRAWS)])
    return {
        "patch_rank": ranks.mean().item(), "patch_rank_error": (ranks.std() / math.sqrt(len(ranks))).item(),
        "patch_separability": signals.separability(patches, CLUSTERS),
    }  # fmt: skip


def _dictionary(contrast: Contrast, batch: int) -> tuple[int, str]:
    """The number of keys that a query is compared with, and the kind of the dictionary."""
    if isinstance(contrast.dictionary, Queue):
        return int((contrast.dictionary.ids >= 0).sum()), "queue"
    if isinstance(contrast.dictionary, MemoryBank):
        return contrast.dictionary.size, "bank"
    return batch - 1, "batch"


def _with_batch_statistics(
    networks: ProbeNetworks, z: Float[Tensor, "n C"], *, batch: int, size: int
) -> dict[str, Any]:
    """The signals that need BN as in training: own, apart, stored, fresh, steady."""
    contrast, probe = networks.contrast, networks.probe
    found: dict[str, Any] = dict.fromkeys(
        ("own", "apart", "leak_error", "stored", "fresh", "stale_error", "steady"), None
    )
    gathers = world_size() > 1 and any(isinstance(layer, SyncBatchNorm) for layer in contrast.modules())
    if size > len(probe) // 2 or gathers:  # cannot be regrouped here
        return found
    count = len(probe) // size * size
    ids, in_order = probe.ids[:count].to(z.device), torch.arange(count)
    q = networks.queries(in_order, size)
    found["steady"] = signals.mean_cosine(q, z[:count])
    if contrast.key_encoder is None:
        return found
    apart_order = torch.randperm(count, generator=torch.Generator().manual_seed(fold(1)))
    apart = networks.encode_grouped_keys(apart_order, size)
    if _has_batchnorm(contrast.encoder):
        own = networks.encode_grouped_keys(_training_order(count, batch, shuffled=contrast.shuffle_bn), size)
        hits = [signals.finds_own_key(q, k, ids, k, ids) for k in (own, apart)]
        found |= {"own": hits[0].double().mean().item(), "apart": hits[1].double().mean().item()}
        found["leak_error"] = signals.difference(*hits)[1]
    if isinstance(contrast.dictionary, Queue) and bool((contrast.dictionary.ids >= 0).all()):
        among = min(len(contrast.dictionary.keys), count)
        rows = torch.linspace(0, len(contrast.dictionary.keys) - 1, among).long().to(z.device)
        stored = signals.finds_own_key(q, apart, ids, contrast.dictionary.keys[rows], contrast.dictionary.ids[rows])
        fresh = signals.finds_own_key(q, apart, ids, apart[:among], ids[:among])
        found |= {"stored": stored.double().mean().item(), "fresh": fresh.double().mean().item()}
        found["stale_error"] = signals.difference(stored, fresh)[1]
    return found


def _training_order(count: int, batch: int, *, shuffled: bool) -> Int64[Tensor, " n"]:
    """The order in which keys form BN groups in training: that of the queries, or shuffled in each mini-batch."""
    order = torch.arange(count)
    if not shuffled:
        return order
    rng = torch.Generator().manual_seed(fold(2))
    return torch.cat([part[torch.randperm(len(part), generator=rng)] for part in order.split(batch)])


def _has_batchnorm(network: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in network.modules())


def bn_group_size(recipe: Recipe, ranks: int) -> int:
    """How many images of a mini-batch share their BN statistics in training."""
    batch = recipe.optim.batch_size
    return batch if recipe.method.bn == "sync" else batch // ranks // max(1, recipe.groups // ranks)


def update_size(optimizer: torch.optim.Optimizer) -> float | None:
    """|change| / |weights| of the last step of all parameters together, from the optimizer's state; None if unknown.

    SGD and LARS change by lr x momentum buffer, AdamW by lr x m / (sqrt(v) + eps) with bias correction. Weight decay
    of AdamW is left out: it is not part of its state.
    """
    changes, weights = 0.0, 0.0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            change = _change(state, group)
            if change is None:
                continue
            changes += (group["lr"] * change).double().square().sum().item()
            weights += parameter.detach().double().square().sum().item()
    return math.sqrt(changes / weights) if weights else None


def _change(state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
    if isinstance(state.get("exp_avg"), Tensor):
        steps = float(state["step"])
        m = state["exp_avg"] / (1 - group["betas"][0] ** steps)
        v = state["exp_avg_sq"] / (1 - group["betas"][1] ** steps)
        return m / (v.sqrt() + group["eps"])
    buffer = state.get("momentum_buffer")
    return buffer if isinstance(buffer, Tensor) else None
