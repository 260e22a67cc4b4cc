"""`moco transfer` on a device: a few iterations of each kind of network, from files to scores."""

import pytest
import torch

from moco.transfer.transfer import transfer
from tests.transfer.draw_scenes import make_scenes
from tests.transfer.draw_shape_classes import make_shapes as make_classes
from tests.transfer.draw_shapes import make_shapes
from tests.transfer.recorded import DETECTORS, in_order, recorded
from tests.transfer.small_settings import CLASSIFY, DETECT, SEGMENT

TINY = {"encoder.width": 0.125}
TASKS = {
    "detect": (lambda folder: make_scenes(folder, 8, seed=0), {"arch": "fpn"}, TINY | DETECT),
    "instance": (lambda folder: make_scenes(folder, 8, seed=0), {"arch": "fpn"},
                 TINY | DETECT | {"detector.mask_channels": 16}),
    "segment": (lambda folder: make_shapes(folder, 8, seed=0), {}, SEGMENT),
    "classify": (lambda folder: make_classes(folder, 6, seed=0, size=24), {}, TINY | CLASSIFY),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_and_scores_on_the_device(task, device, tmp_path):
    make, options, settings = TASKS[task]
    data = make(tmp_path / "data")
    table = transfer(
        task, data, tmp_path / "out", init={"random": "random"}, model="resnet50" if task == "segment" else "resnet18",
        schedule="4", settings=settings, device=str(device), workers=1, **options,
    )  # fmt: skip
    assert table.rows[0].trials[0]


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_and_losses_are_detectron2s(name, device, record_property):
    """Recorded on a CPU (tests/fixtures/detection)."""
    file = recorded(name)
    detector = file.detector().eval().to(device)
    images = [image.to(device) for image in file.images()]
    worst = 0.0
    for image, found in enumerate(detector(images, sizes=file.sizes())):
        assert torch.equal(found["labels"].cpu(), file[f"eval/{image}/classes"])
        worst = max(worst, float((found["boxes"].cpu() - file[f"eval/{image}/boxes"]).abs().max()))
    record_property("largest difference of a box [pixels]", f"{worst:.1e}")
    assert worst < 0.02
    targets = [
        {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in target.items()}
        for target in file.targets()
    ]
    with in_order():
        losses = detector.train()(images, targets)
    for loss, value in losses.items():
        assert value.item() == pytest.approx(file[f"train/loss/{loss}"].item(), rel=1e-3, abs=1e-4), loss
