"""Find the network of torchvision or timm that equals an encoder, and the Python code that loads it there."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from moco.encoders.resnet import NETS
from moco.encoders.torchvision_timm import TORCHVISION, WITHOUT_AUXILIARY, timm_size
from moco.encoders.vit import VITS
from moco.recipe import EncoderSpec
from moco.weights.load import WeightsError

LIBRARIES = ("torchvision", "timm")
ELSEWHERE = "moco.load reads this one, and --to onnx takes it"

# Our networks whose name differs in the libraries. torchvision has no resnet10.
RENAMED: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("resnet10", "timm"): ("resnet18", {"layers": (1, 1, 1, 1)}),
    ("resnext50_32x8d", "torchvision"): ("resnet50", {"groups": 32, "width_per_group": 8}),
    ("resnext50_32x8d", "timm"): ("resnext50_32x4d", {"base_width": 8}),
}
# Our ViTs in timm. MoCo v3's ViT-S has 12 heads and timm's has 6: their shapes agree, their features do not.
TIMM_VITS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_small": ("vit_small_patch16_224", {"num_heads": VITS["vit_small"].heads}),
    "vit_base": ("vit_base_patch16_224", {}),
    "vit_large": ("vit_large_patch16_224", {}),
    "vit_huge": ("vit_huge_patch14_224", {}),
    "vit_micro": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}),
}
# Networks that are the same in both libraries.
IN_BOTH = frozenset(
    f"{family}{variant}"
    for family, variants in {
        "resnet": ("18", "34", "50", "101", "152"),
        "wide_resnet": ("50_2", "101_2"),
        "resnext": ("50_32x4d", "101_32x8d", "101_64x4d"),
        "densenet": ("121", "161", "169", "201"),
    }.items()
    for variant in variants
)
DILATED: dict[str, dict[str, Any]] = {
    "torchvision": {"replace_stride_with_dilation": [False, False, True]},
    "timm": {"output_stride": 16},
}


@dataclass(frozen=True)
class Call:
    """A call of a library's constructor. `str` gives the code, and `build` and `build_headless` run it."""

    library: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The library's network with random weights."""
        if self.library == "torchvision":
            from torchvision import models

            return models.get_model(self.name, weights=None, **self.arguments)
        import timm

        return timm.create_model(self.name, pretrained=False, **self.arguments)

    def build_headless(self) -> nn.Module:
        """The same without its classifier."""
        if self.library == "timm":
            import timm

            return timm.create_model(self.name, pretrained=False, num_classes=0, **self.arguments)
        network = self.build()
        network.set_submodule(TORCHVISION[type(network).__name__].classifier, nn.Identity())
        return network

    def __str__(self) -> str:
        return self.to_code()

    def to_code(self, **more: Any) -> str:
        function = "torchvision.models.get_model" if self.library == "torchvision" else "timm.create_model"
        arguments = [json.dumps(self.name), *(f"{name}={value!r}" for name, value in (self.arguments | more).items())]
        return f"{function}({', '.join(arguments)})"

    def program(self, file: str) -> str:
        """Python code that builds the network and loads `file` into it; the classifier keeps random weights."""
        if self.library == "timm":
            without = self.to_code(num_classes=0, checkpoint_path=file)
            return f"import timm\nmodel = {without}  # features only"
        module, read = ("safetensors.torch", "load_file") if file.endswith(".safetensors") else ("torch", "load")
        load = f"model.load_state_dict({module}.{read}({file!r}), strict=False)  # all but the classifier"
        return f"import {module}, torchvision\nmodel = {self}\n{load}"


def library_equivalent(spec: EncoderSpec, library: str, size: int) -> Call:
    """The call by which `library` ("torchvision" or "timm") builds this network, for images of `size` pixels.

    Raises:
        WeightsError: the library has no such network.
    """
    call = _equivalent(spec, library, size)
    if spec.channels == 3:
        return call
    if library == "torchvision":
        raise WeightsError(
            f"torchvision's networks take 3 channels, and this {spec.name} takes {spec.channels}: export it --to timm"
        )
    return replace(call, arguments=call.arguments | {"in_chans": spec.channels})


def _equivalent(spec: EncoderSpec, library: str, size: int) -> Call:
    """The same for 3 channels."""
    home, _, name = spec.name.rpartition("/")
    if home == library:
        more = WITHOUT_AUXILIARY.get(name, {}) if library == "torchvision" else timm_size(name, size)
        return Call(library, name, more)
    plain = name.partition(".")[0]  # without the tag of pretrained weights
    if home and plain in IN_BOTH:
        return Call(library, plain)
    if spec.name in VITS:
        return _vit_equivalent(spec, library, size)
    if spec.name not in NETS:
        where = f"export it to {home}" if home else "it loads in moco only"
        raise WeightsError(f"{spec.name} is not a network of {library}: {where}")
    stem = [f"the stem {spec.stem}"] if spec.stem != "7x7/2+pool" else []
    ours = stem + ([f"width {spec.width:g}"] if spec.width != 1 else [])
    if ours:
        raise WeightsError(f"{library} has no {spec.name} with {' and '.join(ours)}: {ELSEWHERE}")
    if (spec.name, library) == ("resnet10", "torchvision"):
        raise WeightsError("torchvision has no resnet10, but timm has: export it --to timm")
    name, arguments = RENAMED.get((spec.name, library), (spec.name, {}))
    return Call(library, name, arguments | (DILATED[library] if spec.dilate_last else {}))


def _vit_equivalent(spec: EncoderSpec, library: str, size: int) -> Call:
    """The same for our ViTs."""
    if library == "torchvision":
        raise WeightsError(
            f"torchvision has no {spec.name}: the weights of its ViTs have other names. Export it --to timm"
        )
    if VITS[spec.name].conv_stem:
        raise WeightsError(f"timm has no ViT with the convolutional stem of {spec.name}: this one loads in moco only")
    name, arguments = TIMM_VITS[spec.name]
    arguments = arguments | ({} if spec.patch is None else {"patch_size": spec.patch})
    arguments |= {} if spec.position != "none" else {"pos_embed": "none"}
    return Call(library, name, arguments | ({} if size == 224 else {"img_size": size}))
