"""The Vision Transformers of MoCo v3 (arXiv:2104.02057, Sec. 4 and 5), with timm's parameter names.

They differ from timm's by 12 heads for ViT-S, fixed sine-cosine positions, the initialization, and an optionally frozen
patch projection. With the same weights, the features equal timm's.
"""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moco.recipe import EncoderSpec, RecipeError


class ViTShape(NamedTuple):
    """The shape of a ViT. The MLP of each block has 4 x `width` hidden units."""

    blocks: int
    width: int  # D, of a token
    heads: int
    patch: int = 16  # [pixels] the side of a patch
    conv_stem: bool = False  # four 3x3 convolutions of stride 2 instead of one patch projection of stride 16


VITS: dict[str, ViTShape] = {
    "vit_small": ViTShape(12, 384, heads=12),  # Table 2; in timm and DINO it has 6 heads
    "vit_base": ViTShape(12, 768, heads=12),
    "vit_large": ViTShape(24, 1024, heads=16),
    "vit_huge": ViTShape(32, 1280, heads=16, patch=14),
    "vit_conv_small": ViTShape(11, 384, heads=12, conv_stem=True),  # moco-v3, vits.py: the stem counts as a block
    "vit_conv_base": ViTShape(11, 768, heads=12, conv_stem=True),
    "vit_micro": ViTShape(3, 64, heads=4, patch=8),  # not from a paper: for 32 x 32 images on a CPU
}


class Attention(nn.Module):
    """Multi-head self-attention; each head has `width / heads` channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each N x heads x T x D / heads
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))

    def forward(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Images to features: patch tokens and a class token, whose output after the last block is the feature.

    Args:
        net: one of `VITS`, or another shape.
        channels: of the images.
        size: [pixels] of the images, square, a multiple of the patch.
        position: "sincos" is fixed (but in the state dict), "learned" is trained, "none" has no position embedding.
        freeze_patch: the patch projection is not trained (Sec. 4.2); not for a convolutional stem.
    """

    def __init__(
        self, net: ViTShape, *, channels: int = 3, size: int = 224, position: str = "sincos", freeze_patch: bool = False
    ) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.num_features = width = net.width
        proj = _conv_stem(channels, width) if net.conv_stem else nn.Conv2d(channels, width, net.patch, stride=net.patch)
        self.patch_embed = nn.Sequential(OrderedDict(proj=proj))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        grid = size // net.patch
        match position:
            case "sincos":
                self.pos_embed = nn.Parameter(sincos(grid, width), requires_grad=False)
            case "learned":  # N(0, 0.02^2) as in arXiv:2010.11929; MoCo v3's paper does not say
                self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + grid**2, width))
            case _:
                self.pos_embed = None
        self.blocks = nn.Sequential(*(Block(width, net.heads) for _ in range(net.blocks)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialize()
        self.patch_embed.requires_grad_(not freeze_patch)

    @torch.no_grad()
    def _initialize(self) -> None:
        """MoCo v3's initialization: Glorot uniform, separately for q, k and v; biases 0.

        A convolutional stem keeps nn.Conv2d's default weights (moco-v3, vits.py).
        """
        nn.init.normal_(self.cls_token, std=1e-6)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                for weight in module.weight.chunk(3 if name.endswith("qkv") else 1):
                    nn.init.xavier_uniform_(weight)
                module.bias.zero_()
        proj = self.patch_embed.get_submodule("proj")
        if isinstance(proj, nn.Conv2d):  # as a linear layer from 3 x patch x patch inputs to D outputs
            nn.init.xavier_uniform_(proj.weight.flatten(1))
            nn.init.zeros_(proj.get_parameter("bias"))

    def dense(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N T D"]:
        """The patch tokens, row by row."""
        return self.norm(self._tokens(x)[:, 1:])

    def forward(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N D"]:
        """The feature: the class token."""
        return self.norm(self._tokens(x)[:, 0])

    def _tokens(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N L D"]:
        """All tokens after the last block, the class token first."""
        if x.shape[2:] != (self.size, self.size):
            raise ValueError(
                f"this ViT was built for images of {self.size} x {self.size} pixels, got {x.shape[2]} x {x.shape[3]}: "
                "resize them, or build it with size="
            )
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        return self.blocks(tokens if self.pos_embed is None else tokens + self.pos_embed)


def sincos(grid: int, width: int) -> Float[Tensor, "1 L D"]:
    """Fixed position embedding of the L = 1 + grid^2 tokens: sin and cos of the row, then of the column (Sec. 5).

    Each of the four has D / 4 frequencies, with wavelengths from 2 pi to 2 pi x 10,000 patches. The class token has
    zeros. The released weights have rows first, although vits.py names that half after the width.
    """
    place = torch.arange(grid, dtype=torch.float64)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    waves = [torch.outer(axis.flatten(), frequencies) for axis in (rows, columns)]
    patches = torch.cat([wave for one in waves for wave in (one.sin(), one.cos())], dim=1)
    return F.pad(patches, (0, 0, 1, 0)).float()[None]


def vit(spec: EncoderSpec, *, size: int | None = None) -> ViT:
    """The ViT that `spec` describes, for images of `size` pixels (None: 224), with random weights.

    Raises:
        RecipeError: `size` is not a multiple of the patch size, or a setting does not apply to this network.
    """
    net, size = VITS[spec.name], size or 224
    if net.conv_stem and spec.freeze_patch:
        raise RecipeError(
            f"encoder.freeze_patch applies to a patch projection; {spec.name} has a convolutional stem instead, which "
            "is stable when trained; the authors advise against freezing it: set it to false"
        )
    if net.conv_stem and spec.patch not in (None, net.patch):
        raise RecipeError(
            f"encoder.patch must be left out for {spec.name}: its convolutions make patches of {net.patch} pixels, got "
            f"{spec.patch}"
        )
    net = net._replace(patch=spec.patch or net.patch)
    if size % net.patch:
        near = max(size // net.patch, 1) * net.patch
        raise RecipeError(
            f"{spec.name} cuts images into patches of {net.patch} x {net.patch} pixels: expected data.size to be a "
            f"multiple of {net.patch}, got {size}. Set data.size={near}, or another encoder.patch"
        )
    return ViT(net, channels=spec.channels, size=size, position=spec.position, freeze_patch=spec.freeze_patch)


def recognise_vit(tensors: dict[str, Tensor]) -> EncoderSpec | None:
    """The ViT of `VITS` with these parameter names and shapes, ignoring any head; None if there is none.

    Shapes show neither the number of attention heads nor a frozen patch projection. MoCo v3's number of heads is
    assumed, so the caller must know that the file is from MoCo v3 (ViT-S has 12 heads there, 6 in timm and DINO). A
    position embedding equal to `sincos` is strong evidence.
    """
    tensors = {key: value for key, value in tensors.items() if not key.startswith(("head.", "fc."))}
    cls_token, proj, position = (tensors.get(key) for key in ("cls_token", "patch_embed.proj.weight", "pos_embed"))
    if cls_token is None or (proj is not None and (proj.ndim != 4 or proj.numel() == 0)):
        return None
    if position is not None and (position.ndim != 3 or position.shape[1] < 2):
        return None
    for name, net in VITS.items():
        if cls_token.numel() != net.width or (proj is None) != net.conv_stem:
            continue
        patch = net.patch if proj is None else proj.shape[-1]
        grid = 1 if position is None else math.isqrt(position.shape[1] - 1)
        spec = EncoderSpec(
            name=name, patch=None if patch == net.patch else patch, position="none" if position is None else "sincos"
        )
        with torch.device("meta"):
            expected = vit(spec, size=grid * patch).state_dict()
        if _shapes(expected) == _shapes(tensors):
            fixed = position is None or torch.allclose(position.float(), sincos(grid, net.width), atol=1e-4)
            return spec if fixed else spec.model_copy(update={"position": "learned"})
    return None


def _conv_stem(channels: int, width: int) -> nn.Sequential:
    """Four 3x3 convolutions of stride 2 with BN and ReLU, then a 1x1 convolution (moco-v3, vits.py)."""
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in (width // 8, width // 4, width // 2, width):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in tensors.items()}
