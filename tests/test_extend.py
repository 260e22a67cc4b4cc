"""The examples of docs/extend.md run as they stand there."""

import re
from pathlib import Path

import pytest
from sample_pictures import make_pictures

import moco
from moco.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/extend.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
EXAMPLES = [
    (title, number, code)
    for title, part in SECTIONS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", part, re.DOTALL))
]


def test_every_section_has_an_example():
    assert list(SECTIONS) == ["A dictionary", "A data set", "An augmentation", "An evaluation"]
    assert {title for title, _, _ in EXAMPLES} == set(SECTIONS)


@pytest.mark.parametrize("code", [code for _, _, code in EXAMPLES], ids=[f"{title} {i}" for title, i, _ in EXAMPLES])
def test_each_example_runs_unchanged(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Recipe):
    if "runs/photos" in code:
        moco.pretrain(make_pictures(tmp_path / "pictures", 40), tmp_path / "runs/photos", recipe=tiny, workers=0)
        make_pictures(tmp_path / "labelled", 40, classes=2)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/extend.md", "exec"), {"__name__": "example"})
