"""Two runs of one recipe, which several tests damage copies of."""

import pytest
import torch
from sample_pictures import make_pictures

from moco import recipes
from moco.train.pretrain import pretrain
from tests.train.helpers import stop


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was stopped after step 4 of 10, with the checkpoints of steps 2 and 4, and a whole one."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = recipes.named("demo").but(
        "tiny",
        {
            "encoder.width": 0.0625, "encoder.dim": 8, "data.size": 16, "data.eval_resize": 16, "method.size": 20,
            "optim.batch_size": 8, "optim.epochs": 2,
        },
    )  # fmt: skip
    torch.set_num_threads(1)
    pictures = make_pictures(folder / "pictures", 40)
    stop(pictures, folder / "stopped", recipe)
    pretrain(pictures, folder / "whole", recipe=recipe)
    return pictures, recipe, folder
