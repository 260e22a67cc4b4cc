"""The settings of the paper's detection tables (2 to 6), each number with its source.

P: the paper's Sec. 4.2 and appendix; D: Detectron2's configuration of that row; M: the authors' detection/configs.
Batch sizes are 16 (P), weight decay 1e-4 and none on norm layers (D, M).
"""

from moco.recipe_error import RecipeError, unknown
from moco.transfer.detection.recipe import DetectionRecipe, SizeSpec
from moco.transfer.models.settings import Task
from moco.transfer.recipe import TuneSpec

VOC_SIDES = tuple(range(480, 801, 32))  # P: "480 to 800 pixels in training and 800 in testing"
COCO_SIDES = tuple(range(640, 801, 32))  # P: "640 to 800 pixels"

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


def detection_recipe(task: Task, arch: str, schedule: str) -> DetectionRecipe:
    """The paper's settings for a task, an architecture and a schedule.

    Args:
        schedule: a name of SCHEDULES, or a number of iterations: 24k made as short (detect), or 1x.

    Raises:
        RecipeError: an unknown architecture or schedule.
    """
    source = "MoCo v1, Sec. 4.2 and appendix; Detectron2's configurations"
    voc = schedule in ("24k", "9k")
    if schedule in SCHEDULES:
        optim = SCHEDULES[schedule]
    elif schedule.isdecimal() and 0 < int(schedule) < 2**31:
        voc = task == "detect"
        optim = SCHEDULES["24k" if voc else "1x"].shortened(int(schedule))
        source += f"; shortened to {int(schedule):,} iterations"
    else:
        known = [*SCHEDULES, "a number of iterations"]
        raise RecipeError(unknown("schedule", schedule, known))
    sizes = SizeSpec(shorter=VOC_SIDES if voc else COCO_SIDES)
    base = DetectionRecipe(name=f"{task}_{arch}_{schedule}", source=source, task=task, optim=optim, sizes=sizes)
    return base.but(None, {"arch": arch})
