"""Export a fine-tuned segmenter or classifier to ONNX. ONNX Runtime must agree with torch before the file appears."""

import json
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from moco.atomic_output import stage_paths
from moco.transfer.saved_model import load_model
from moco.transfer.task_interface import Exportable
from moco.transfer.task_registry import task_named
from moco.weights.export.onnx import check_agreement, onnx_runtime, quiet
from moco.weights.loaded_weights import WeightsError

TRACED = (70, 90)  # [pixels] height and width of the images that the exporter sees, if any size is allowed
CHECKED = ((1, (33, 129)), (3, (96, 50)))  # number and size of images that ONNX Runtime is checked with

PROGRAM = """\
import json
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession({out}, providers=["CPUExecutionProvider"])
images = np.zeros((1, 3, {height}, {width}), np.uint8)  # your images
({output},) = session.run(None, {{"images": images}})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])"""


def export_model(folder: Path, out: Path, *, overwrite: bool) -> str:
    """Write `out` from the folder of a fine-tuned model. Its metadata has the names of the classes.

    Returns:
        What was written, how much its outputs differ from torch's, and how to use it.

    Raises:
        WeightsError: a detector, or ONNX Runtime gives other outputs. ImportError: an optional package is missing.
    """
    tuned = load_model(folder)
    exported = task_named(tuned.recipe.task).wrap_for_export(tuned.model, tuned.recipe)
    if exported is None:
        raise WeightsError(
            f"a model of the task {tuned.recipe.task} cannot be exported to ONNX: torch.export stops in torchvision's "
            "batched_nms, whose branches depend on the detected boxes. Use it in Python: "
            f'moco.load("{folder}").predict(image)'
        )
    runtime = onnx_runtime()
    network = exported.network.eval()
    with stage_paths([out], overwrite=overwrite) as (aside,):
        with quiet():
            torch.onnx.export(
                network, (images_of(exported, 2, TRACED),), aside, dynamo=True, external_data=False, verbose=False,
                input_names=["images"], output_names=[exported.output], dynamic_shapes=({0: "N", **_free(exported)},),
            )  # fmt: skip
        _note_classes(aside, tuned.classes)
        session = runtime.InferenceSession(aside, providers=["CPUExecutionProvider"])
        apart = max(check_agreement(session, network, images_of(exported, *one), exported.output) for one in CHECKED)
    side = exported.size
    sides, maps = ("H x W", " x H x W") if side is None else (f"{side} x {side}", "")
    height, width = (480, 640) if side is None else (side, side)
    program = PROGRAM.format(out=json.dumps(str(out)), height=height, width=width, output=exported.output)
    return (
        f"{out} maps `images`, N x 3 x {sides} bytes, to `{exported.output}`, N x {len(tuned.classes)}{maps}. In ONNX "
        f"Runtime they differ from torch's by at most {apart:.1g} of the largest, for 1 and for 3 random images.\n"
        f"{exported.preparation} {exported.meaning}\n\n{program}"
    )


def images_of(exported: Exportable, n: int, size: tuple[int, int]) -> UInt8[Tensor, "N 3 H W"]:
    """n random images, the same in every call: of `size`, unless the model takes one size only."""
    sides = size if exported.size is None else (exported.size, exported.size)
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *sides), dtype=torch.uint8, generator=rng)


def _free(exported: Exportable) -> dict[int, str]:
    return {2: "H", 3: "W"} if exported.size is None else {}


def _note_classes(file: str | Path, classes: tuple[str, ...]) -> None:
    """Add the names of the classes to the file's metadata, as a JSON list."""
    onnx = import_module("onnx")
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {"classes": json.dumps(classes)})
    onnx.save(model, file)
