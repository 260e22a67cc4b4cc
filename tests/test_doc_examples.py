"""The Python examples of README and docs run as they stand there (those of docs/extend.md: test_extend.py)."""

import functools
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures

import moco
from tests.transfer.sample_voc import devkit
from tests.transfer.tiny_detector import SHORT, make_data, run

ROOT = Path(__file__).parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.name != "extend.md"]
EXAMPLES = [
    (f"{page.name} {number}", code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples read: photographs, annotations, and a fine-tuned model."""
    folder = tmp_path_factory.mktemp("files")
    photos = make_pictures(folder / "photos", 40)
    for name in ("a.jpg", "b.jpg"):
        Image.open(next(photos.iterdir())).convert("RGB").save(folder / name)
    devkit(folder)
    run(make_data(folder / "scenes"), folder / "runs/transfer/mine/trial_0", SHORT)
    return folder


def test_every_page_with_examples_is_found():
    assert {name.partition(" ")[0] for name, _ in EXAMPLES} >= {"README.md", "index.md", "data.md", "transfer.md"}


@pytest.mark.parametrize("code", [code for _, code in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_each_example_runs_unchanged(code, files, tmp_path, monkeypatch, tiny):
    """`moco.pretrain` makes a run of a second: the recipe is the only difference."""
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    if "pretrain" in code:
        (tmp_path / "runs").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(moco, "pretrain", functools.partial(moco.pretrain, recipe=tiny, workers=0))
    image = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    exec(compile(code, "docs", "exec"), {"__name__": "example", "image": image})
