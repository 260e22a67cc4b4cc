"""`moco import`: convert a weights file of another project into a folder that other commands can use."""

import json
import os
from pathlib import Path

import torch

from moco.atomic_output import created_folder, local_path, make_staging_folder
from moco.files import write_atomically, write_text
from moco.recipe import EncoderSpec, Recipe
from moco.text import plural
from moco.weights.copy_weights import check_values_of_parts
from moco.weights.encoder_folder import build_encoder, save_encoder
from moco.weights.export_paths import check_new_folder
from moco.weights.import_folder import CONTENTS, REST, join_content, split_content
from moco.weights.load import read_weights
from moco.weights.loaded_weights import Weights, WeightsError
from moco.weights.tensors import same_tensors


def import_weights(
    weights: Weights, *, out: str | Path, architecture: str | EncoderSpec | None = None, prefix: str = ""
) -> str:
    """Import a file, or released weights by name, into the folder `out`: see `moco.weights.import_folder`.

    The folder appears only after it was read back and found equal to the file, bit for bit.

    Args:
        weights: a file with weights in any format that `load_encoder` reads, or `fair:NAME`.
        architecture, prefix: as for `load_encoder`.

    Returns:
        Lines that describe the content of the file and name the folder.

    Raises:
        WeightsError: the file does not exist, its network is unknown, or `out` is not empty.
    """
    out = local_path(out)
    check_new_folder(out)
    found = read_weights(weights, prefix=prefix)
    if not found.content:
        raise WeightsError(f"moco import expects a weights file, got {weights}: use it directly, without an import")
    encoder, config = build_encoder(found, architecture=architecture)
    recipe = Recipe(name=found.recipe or "imported", source=found.where, encoder=encoder.spec, data=config.data)
    origin = Path(found.where).name
    check_values_of_parts(found)
    rest = split_content(found.content, found.backbone, encoder.backbone.state_dict(), prefix=found.prefix)
    contents = dict(found.contents or {"layout": "moco checkpoint"})
    if found.guess is None and "network" in contents:
        contents["network"] = f"{encoder.spec.name}, {plural(len(found.backbone), 'tensor')}"
    about = {"file": origin, **contents, "encoder": encoder.spec.model_dump(), "facts": found.facts}
    with created_folder(out.parent), make_staging_folder(out) as aside:
        save_encoder(aside / "encoder", encoder, recipe=recipe, facts=found.facts, imported_from=origin)
        write_atomically(aside / REST, lambda file: torch.save(rest, file))
        write_text(aside / CONTENTS, json.dumps(about, indent=1, default=str) + "\n")
        if not same_tensors(join_content(aside), found.content):
            raise WeightsError(f"{out} would not contain what is in {found.where}: the disk or moco is at fault")
        os.rename(aside, out)  # replaces at most an empty folder
    lines = [f"{name}: {value}" for name, value in contents.items()]
    return "\n".join([f"{found.where} holds", *(f"  {line}" for line in lines), f"All of it is in {out}."])
