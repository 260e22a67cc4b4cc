"""The NaN gate: whatever is not finite, and wherever in a run, the state stays as it was before that step."""

import copy
import json

import pytest
import torch
from harness import small_state

from moco.distributed import session
from moco.method import Contrast
from moco.recipe import RecipeError
from moco.schedule import Constant
from moco.train.console import Silent
from moco.train.gate import Diverged, Gate
from moco.train.loop import train
from moco.train.pretrain import pretrain
from moco.train.refused import bearable
from moco.train.run import RunFolder
from tests.train.test_pretrain import assert_same, final_state
