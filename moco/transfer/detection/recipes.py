"""The settings of the paper's detection tables (2 to 6), each number with its source.

P: the paper's Sec. 4.2 and appendix; D: Detectron2's configuration of that row; M: the authors' detection/configs.
Batch sizes are 16 (P), weight decay 1e-4 and none on norm layers (D, M).
"""

from moco.recipe_error import RecipeError, unknown
from moco.transfer.detection.recipe import DetectionRecipe, SizeSpec
from moco.transfer.detection.repeat import REPEAT_THRESHOLD
from moco.transfer.models.settings import Task
from moco.transfer.recipe import TuneSpec

VOC_SIDES = tuple(range(480, 801, 32))  # P: "480 to 800 pixels in training and 800 in testing"
COCO_SIDES = tuple(range(640, 801, 32))  # P: "640 to 800 pixels"
# D (Cityscapes/mask_rcnn_R_50_FPN.yaml): 800 to 1024 in training and 1024 in testing, at most 2048
CITYSCAPES_SIZES = SizeSpec(shorter=tuple(range(800, 1025, 32)), eval_shorter=1024, longest=2048)

SCHEDULES: dict[str, TuneSpec] = {
    # P (Table 2): 24k iterations; M: steps 18k and 22k, warm-up 100
    "24k": TuneSpec(lr=0.02, at=(18_000, 22_000), warmup=100, iterations=24_000),
    # P (Table 4): 9k iterations for trainval07; steps not published: those of 24k, at the same shares
    "9k": TuneSpec(lr=0.02, at=(6_750, 8_250), warmup=100, iterations=9_000),
    # D: 90k iterations, steps 60k and 80k, warm-up 1000
    "1x": TuneSpec(lr=0.02, at=(60_000, 80_000), warmup=1000, iterations=90_000),
    "2x": TuneSpec(lr=0.02, at=(120_000, 160_000), warmup=1000, iterations=180_000),
    # P (A.8): 6x
    "6x": TuneSpec(lr=0.02, at=(480_000, 520_000), warmup=1000, iterations=540_000),
}
OWN_SCHEDULES: dict[Task, dict[str, TuneSpec]] = {  # of tasks that take no others
    # The paper's appendix does not describe instances of Cityscapes. D: 24k iterations, step 18k, batch 8, lr 0.01
    "cityscapes": {"24k": TuneSpec(lr=0.01, at=(18_000,), batch_size=8, iterations=24_000)},
    # P (A.3): "s1x"; D: 130k iterations, steps 100k and 120k, and lr 0.002 (densepose_rcnn_R_50_FPN_s1x_legacy.yaml)
    "densepose": {"s1x": TuneSpec(lr=0.002, at=(100_000, 120_000), iterations=130_000)},
}
SHORTENED: dict[Task, str] = {"detect": "24k", "cityscapes": "24k", "densepose": "s1x"}  # other tasks: 1x


def detection_recipe(task: Task, arch: str, schedule: str) -> DetectionRecipe:
    """The paper's settings for a task, an architecture and a schedule.

    Args:
        schedule: a name of SCHEDULES or OWN_SCHEDULES, or a number of iterations: the schedule in SHORTENED is
            shortened to it.

    Raises:
        RecipeError: an unknown architecture or schedule.
    """
    source = "MoCo v1, Sec. 4.2 and appendix; Detectron2's configurations"
    schedules = OWN_SCHEDULES.get(task, SCHEDULES)
    name = schedule
    if schedule in schedules:
        optim = schedules[schedule]
    elif schedule.isdecimal() and 0 < int(schedule) < 2**31:
        name = SHORTENED.get(task, "1x")
        optim = schedules[name].with_iterations(int(schedule))
        source += f"; shortened to {int(schedule):,} iterations"
    else:
        known = [*schedules, "a number of iterations"]
        raise RecipeError(unknown("schedule", schedule, known))
    base = DetectionRecipe(
        name=f"{task}_{arch}_{schedule}", source=source, task=task, optim=optim, sizes=_sizes(task, name),
        repeat=REPEAT_THRESHOLD if task == "lvis" else None,
    )  # fmt: skip
    return base.but(None, {"arch": arch})


def _sizes(task: Task, schedule: str) -> SizeSpec:
    if task == "cityscapes":
        return CITYSCAPES_SIZES
    return SizeSpec(shorter=VOC_SIDES if schedule in ("24k", "9k") else COCO_SIDES)
