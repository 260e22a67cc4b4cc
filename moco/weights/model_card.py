"""The model card: README.md of an encoder folder.

Names and facts are untrusted text. Each is a code span on one line, so it cannot become markup; the YAML front matter
is constant.
"""

import json
import re
from typing import Any

from moco.encoders.resnet import NETS
from moco.recipe import DataSpec, EncoderSpec
from moco.weights.library_equivalent import LIBRARIES, library_equivalent
from moco.weights.loaded_weights import Config, WeightsError

CARD = """\
---
license: other
library_name: momentum-contrast
tags:
- self-supervised-learning
- momentum-contrast
- image-feature-extraction
---

# An image encoder, {title}

{origin}

- network: {network}
- parameters: {parameters}
- images: resize the shorter side to {eval_resize} pixels, crop the central {size} x {size}, {scale},
  subtract the mean {mean}, divide by the standard deviation {std}

## Where it comes from

- recipe: {recipe}, after {source}
{facts}

## How to use it

With moco:

```python
import moco
encoder = moco.load(".")  # this folder
features = encoder.embed(["a.jpg", "b.jpg"])  # one row of {num_features} numbers for each image
```

{libraries}
## Licence

{licence}
"""
TRAINED = """\
The backbone of the query encoder of a MoCo run: it maps an image to {num_features} numbers. It was trained without
labels. The head, which only pre-training needs, is not included."""
IMPORTED = """\
It was read from {file} and maps an image to {num_features} numbers. Heads and classifiers are not included."""
OWN_LICENCE = """\
You may license the weights as you choose: momentum-contrast claims no rights to them. Check the licence of the
training images."""
THEIR_LICENCE = """\
The licence of the file that it was read from."""


def model_card(config: Config, *, parameters: int, source: str, imported_from: str = "") -> str:
    """README.md of an encoder folder.

    Args:
        parameters: their number.
        source: the source of the recipe's numbers.
        imported_from: the file that the weights come from, if they are not from a run.
    """
    spec, data = config.encoder, config.data
    own = f" (stem {spec.stem}, width {spec.width:g}{', last stage dilated' if spec.dilate_last else ''})"
    origin = IMPORTED.format(file=code_span(imported_from), num_features=config.num_features)
    return CARD.format(
        title="imported" if imported_from else "pre-trained by Momentum Contrast",
        origin=origin if imported_from else TRAINED.format(num_features=config.num_features),
        licence=THEIR_LICENCE if imported_from else OWN_LICENCE,
        network=code_span(spec.name) + (own if spec.name in NETS else ""),
        num_features=config.num_features, parameters=f"{parameters:,}",
        size=data.size, eval_resize=data.eval_resize, mean=data.mean, std=data.std,
        scale=describe_scale(data),
        recipe=code_span(config.recipe), source=code_span(source),
        facts="\n".join(f"- {code_span(name)}: {code_span(value)}" for name, value in config.facts.items()),
        libraries="\n".join(_how_to_load(library, spec, data.size) for library in LIBRARIES),
    )  # fmt: skip


def describe_scale(data: DataSpec) -> str:
    """How the values of an image become those that are normalized."""
    if data.bands is None:
        return "scale RGB to [0, 1]"
    return f"map each band from its range (low, high) to [0, 1] and cut off what lies outside ({list(data.bands)})"


def code_span(value: Any) -> str:
    """`value` as a code span on one line, whatever characters it has."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text.replace("`", "'")).strip()
    return f"`{text[:200] or ' '}`"


def _how_to_load(library: str, spec: EncoderSpec, size: int) -> str:
    try:
        call = library_equivalent(spec, library, size)
    except WeightsError as error:
        return f"With {library}: not directly. {code_span(str(error))}\n"
    return f"With {library}:\n\n```python\n{call.program('model.safetensors')}\n```\n"
