"""The settings of the paper's semantic segmentation (Table 6), each number with its source: P is the paper's A.5.

P also gives the mini-batch of 16, weight decay 1e-4, ratios from 0.5 to 2, the flip, and evaluation at the own size.
The paper gives neither the momentum (here 0.9, as everywhere else in it) nor a warm-up (here none). It does not say
whether weight decay acts on norm layers (here not, as in the detection tasks), nor whether the statistics of BN are
computed again before evaluation (here they are, over 200 mini-batches, as in the authors' detection configurations).
"""

from moco.recipe_error import RecipeError, unknown
from moco.transfer.recipe import TuneSpec
from moco.transfer.segmentation.recipe import CropSpec, SegmentationRecipe

SCHEDULES: dict[str, TuneSpec] = {
    # P, VOC: 30k iterations, lr 0.003, times 0.1 at 70 % and 90 % of them
    "30k": TuneSpec(lr=0.003, at=(21_000, 27_000), warmup=0, iterations=30_000),
    # P, Cityscapes: 90k iterations, lr 0.01, times 0.1 at 70 % and 90 % of them
    "90k": TuneSpec(lr=0.01, at=(63_000, 81_000), warmup=0, iterations=90_000),
}
SIDES = {"30k": 513, "90k": 769}  # P: [pixels] of a crop


def segmentation_recipe(arch: str, schedule: str) -> SegmentationRecipe:
    """The paper's settings for VOC (`30k`) or Cityscapes (`90k`).

    Args:
        schedule: a name of SCHEDULES, or a number of iterations: that of VOC made as short.

    Raises:
        RecipeError: an unknown architecture or schedule.
    """
    source = "MoCo v1, Sec. 4.2 and appendix A.5"
    if schedule in SCHEDULES:
        optim, side = SCHEDULES[schedule], SIDES[schedule]
    elif schedule.isdecimal() and 0 < int(schedule) < 2**31:
        optim, side = SCHEDULES["30k"].with_iterations(int(schedule)), SIDES["30k"]
        source += f"; shortened to {int(schedule):,} iterations"
    else:
        raise RecipeError(unknown("schedule", schedule, [*SCHEDULES, "a number of iterations"]))
    base = SegmentationRecipe(name=f"segment_{schedule}", source=source, optim=optim, crops=CropSpec(side=side))
    return base.but(None, {"arch": arch})
