"""Forward passes of a run's networks over the probe set."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from moco.diagnose.probe import ProbeSet
from moco.encoders import Encoder
from moco.method import Contrast, MomentumEncoder
from moco.method.contrast import unit
from moco.recipe import RecipeError

PIXELS = 2**22  # that are encoded at a time, with BN's running statistics
PATCHED, PATCHES = 256, 4096  # images whose patches are measured, and patches of all of them together, at most


class ProbeNetworks:
    """Forward passes over the probe set. They bypass torch.compile, which would compile for each new shape."""

    def __init__(self, contrast: Contrast, probe: ProbeSet):
        self.contrast, self.probe = contrast, probe
        assert isinstance(contrast.encoder, Encoder)
        self.encoder: Encoder = contrast.encoder
        f_k = contrast.key_encoder
        self.key_encoder = f_k.module if isinstance(f_k, MomentumEncoder) else f_k
        self.device = next(contrast.parameters()).device
        self.rows = max(8, min(512, PIXELS // probe.data.size**2))

    def _each(self, which: int, order: Tensor, size: int) -> Iterator[Tensor]:
        layout = torch.channels_last if self._channels_last() else torch.contiguous_format
        for rows in order.split(size):
            yield self.probe.view(which, rows, self.device).contiguous(memory_format=layout)

    def _channels_last(self) -> bool:
        weights = [x for x in self.encoder.parameters() if x.ndim == 4]
        return bool(weights) and weights[0].is_contiguous(memory_format=torch.channels_last)

    def features(self, which: int) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n C"]]:
        """Pooled features and embeddings of a view by f_q, without the predictor."""
        features, embeddings = list[Tensor](), list[Tensor]()
        for x in self._each(which, torch.arange(len(self.probe)), self.rows):
            y = self.encoder.features(x)
            features.append(y.float())
            embeddings.append(self.encoder.head(y).float())
        return torch.cat(features), torch.cat(embeddings)

    def with_predictor(self, embeddings: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """The queries."""
        return unit(torch.cat([self.contrast.predictor.forward(part) for part in embeddings.split(self.rows)]))

    def keys(self, embeddings: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """The keys of the second view. Without a key encoder of its own: its embeddings by f_q."""
        if self.key_encoder is None or self.key_encoder is self.encoder:
            return unit(embeddings)
        network = self.key_encoder
        return torch.cat([
            unit(network.forward(x)) for x in self._each(1, torch.arange(len(self.probe)), self.rows)
        ])  # fmt: skip

    def queries(self, order: Tensor, size: int) -> Float[Tensor, "n C"]:
        """Queries of the first view; each `size` rows of `order` share their BN statistics. In the order of the ids."""
        parts = [unit(self.contrast.predictor.forward(self.encoder.forward(x))) for x in self._each(0, order, size)]
        return torch.cat(parts)[order.argsort()]

    def encode_grouped_keys(self, order: Tensor, size: int) -> Float[Tensor, "n C"]:
        """Keys of the second view, in the same way."""
        assert self.key_encoder is not None
        parts = [unit(self.key_encoder.forward(x)) for x in self._each(1, order, size)]
        return torch.cat(parts)[order.argsort()]

    def patches(self) -> Float[Tensor, "m D"] | None:
        """A sample of the patches of the feature maps of the first view; None if a map has one patch only."""
        images = torch.arange(min(len(self.probe), PATCHED))
        each, parts = PATCHES // len(images), list[Tensor]()
        for x in self._each(0, images, self.rows):
            try:
                maps = self.encoder.features(x, True)
            except RecipeError:  # the network has no single feature map
                return None
            tokens = maps.flatten(2).transpose(1, 2) if maps.ndim == 4 else maps  # N x T x D
            if tokens.shape[1] < 2:
                return None
            chosen = torch.linspace(0, tokens.shape[1] - 1, min(each, tokens.shape[1])).long()
            parts.append(tokens[:, chosen.to(tokens.device)].flatten(0, 1).float())
        return torch.cat(parts)
