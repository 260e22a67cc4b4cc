"""What pycocotools does with polygons and run lengths that are not checked before."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
FAR = (
    "import numpy as np\nfrom moco.transfer import masks\n{}\nmasks.rle_dict((np.array([0, 0, 9e8, 0, 0, 9e8]),), 4, 4)"
)


def returncode(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=100).returncode


def test_without_the_check_of_outlines_a_far_polygon_kills_the_process():
    assert returncode(FAR.format("")) == 1  # ValueError
    assert returncode(FAR.format("masks.problem_of = lambda polygon: None")) < 0  # a signal
