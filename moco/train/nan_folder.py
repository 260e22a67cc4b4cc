"""Names and contents of the folders in nan/: one for each step at which a run stopped. Imports no torch."""

import re
from pathlib import Path

from moco.files import read_json

FILES = ("facts.json", "checkpoint.pt")  # in each folder


def is_nan_folder(name: str) -> bool:
    """Whether `name` is a name of a folder that `moco.train.nan_report.write_nan_report` creates."""
    return re.fullmatch("step_[0-9]{8,}", name) is not None


def is_nan_facts(file: Path) -> bool:
    """Whether `write_nan_report` has written this file."""
    facts = read_json(file)
    return isinstance(facts, dict) and {"step", "not_finite", "image_ids", "random_numbers"} <= facts.keys()
