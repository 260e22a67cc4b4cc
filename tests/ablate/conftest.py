"""An ablation whose runs take a second."""

from dataclasses import replace

import pytest
from sample_pictures import make_pictures

from moco.ablate import families
from moco.ablate.families import Cell, Family
from moco.ablate.scales import ABLATION_SCALES


@pytest.fixture
def tiny_family(monkeypatch, tiny) -> Family:
    """The ablation "tiny" of two recipes, at the scale "tiny"."""
    scale = replace(ABLATION_SCALES["demo"](), name="tiny", moco=tiny, neighbours=3)
    made = Family(
        "tiny", "Tiny", tiny, (Cell("0.5", {"method.momentum": 0.5}), Cell("0.9", {"method.momentum": 0.9})), "m",
        {("", "0.9"): 55.2}, "a paper", measures=("memory", "lag"), remark="{steps} steps.",
    )  # fmt: skip
    monkeypatch.setitem(ABLATION_SCALES, "tiny", lambda: scale)
    monkeypatch.setitem(families.FAMILIES, "tiny", lambda _: made)
    return made


@pytest.fixture
def places(tmp_path) -> dict[str, object]:
    """The arguments of `ablate` that say where: 40 pictures to train on, 80 labelled ones."""
    data = make_pictures(tmp_path / "data", 40)
    labelled = make_pictures(tmp_path / "labelled", 80, classes=2, seed=5)
    return {"scale": "tiny", "data": data, "eval_data": labelled, "out": tmp_path / "out", "workers": 0}
