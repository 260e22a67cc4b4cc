"""What tests of reports share: the parts of a page, and a run folder with hostile texts and its pictures."""

import hashlib
import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch

from moco import recipes
from moco.diagnose.measure import Measurement
from moco.report.picture_sections import PagePictures, page_pictures
from moco.report.sample import PIXELS, RUN, ImageSample, Views
from moco.text import one_line

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?")
HIDDEN = ("style", "script")
RUN_ID = "0" * 24 + hashlib.sha256(b"0" * 24).hexdigest()[:8]


class Page(HTMLParser):
    """The elements, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.hidden = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.hidden += tag in HIDDEN

    def handle_endtag(self, tag):
        self.hidden -= tag in HIDDEN

    def handle_data(self, data):
        if not self.hidden:
            self.texts.append(data)

    @property
    def numbers(self) -> set[str]:
        """All numbers in the text, and in alternative texts and titles."""
        shown = [value for name, value in self.attributes if name in ("alt", "title", "aria-label", "data-value")]
        return {number for text in (*self.texts, *shown) for number in NUMBER.findall(text)}


def numbers_in_json(file: Path) -> set[str]:
    """All numbers in report.json, alone or in texts, without those in the pictures themselves."""
    content = json.loads(file.read_text())
    del content["images"]
    return set(NUMBER.findall(json.dumps(content)))


def probe(step: int) -> dict[str, object]:
    """The signals of a measurement, all different."""
    names = [field.name for field in fields(Measurement)]
    signals = {name: round(0.2 + 0.013 * i + step / 97, 4) for i, name in enumerate(names)}
    return signals | {"probe": 512, "images": 640, "distinct": 637.5, "dim": 128, "keys": 4096}


def make_run(folder: Path, *, epochs: int = 4, text: str = "", finished: bool = False, full: bool = False) -> Path:
    """The folder of a run with a log of 40 steps. `text` is put into everything that a user can name.

    Args:
        finished: it has finished; otherwise an error has stopped it.
        full: with measurements, scores and a comparison.
    """
    folder.mkdir()
    recipe = recipes.named("demo").but("tiny", {"optim.epochs": epochs})
    (folder / "recipe.json").write_text(recipe.to_json())
    records = [
        {"step": step, "epoch": step / 10, "loss": 8 + 1 / step, "pretext_top1": step / 100, "lr": 0.03,
         "images_per_second": 100.0 + step}
        for step in range(1, 41)
    ]  # fmt: skip
    for record in records[9::10] if full else []:
        step = record["step"]
        record |= {"probe": probe(step), "knn": 40 + step / 7, "verdict": "x", "collapsed": False}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    start = {"step": 0, "versions": {"torch": "2.14"}, "images": 640, "skipped": {f".heic{text}": 3}}
    start |= {"machine": {"processor": f"x86{text}", "cores": 16}, "ranks": 1, "workers": 3}
    (folder / "provenance.json").write_text(json.dumps([start | {"command": ["moco", "pretrain", f"photos{text}"]}]))
    (folder / "train.log").write_text(f"2026-01-01T00:00:00+00:00 stopped: DataError: {one_line(text) or 'a disk'}\n")
    bad = '"name","reason"\n' + f'"{text.replace(chr(34), chr(34) * 2)}a.jpg","cut"\n'
    (folder / "bad_images.csv").write_bytes(bad.encode(errors="surrogateescape"))
    (folder / "saved.json").write_text(json.dumps({"first_step": None, "run_id": RUN_ID}))
    if finished:
        facts = {"images": 640, "bad_images": 1, "steps": 40, "epochs": epochs, "seconds": 83.5}
        (folder / "finished.json").write_text(json.dumps(facts))
        (folder / "encoder").mkdir()
        for name in ("model.safetensors", "config.json"):
            (folder / "encoder" / name).write_text("")
    if full:
        (folder / "scores.json").write_text(json.dumps(scores(text)))
        (folder / "compare.json").write_text(json.dumps(comparison(text)))
    return folder


def scores(text: str = "") -> dict[str, object]:
    """What `moco demo` writes as scores.json."""
    columns = ("kNN-20", f"linear{text}")
    rows = {
        name: {column: {"accuracy": base + i, "standard_error": 1.3} for i, column in enumerate(columns)}
        for name, base in ((f"raw pixels{text}", 61.7), ("run", 73.2))
    }
    return {
        "judged": "run", "rows": rows, "chance": 10.9, "classes": 10, "verdict": f"better{text}", "how": "a split",
        "notes": [f"note{text}"],
    }  # fmt: skip


def comparison(text: str = "") -> dict[str, object]:
    """What `moco compare` writes as compare.json."""
    run, pixels = f"run{text}", f"pixels{text}"
    difference = {"points": 9.42, "low": 7.13, "high": 11.58, "different": 231}
    return {
        "judged": run, "images": 2000, "split": f"a split{text}", "level": 0.975,
        "scores": {run: {"20-NN": [73.25]}, "random": {"20-NN": [61.3, 62.9, 64.8]}, pixels: {"20-NN": [64.15]}},
        "differences": {"random": {"20-NN": difference}, pixels: {"20-NN": difference | {"low": -0.31}}},
        "verdicts": {
            "random": {"answer": "yes", "sentence": "x"}, pixels: {"answer": "cannot tell", "sentence": "y"},
        },
        "verdict": {"answer": "cannot tell", "sentence": f"Cannot tell against {pixels}: +9.4 points."},
        "notes": [f"a note{text}"],
    }  # fmt: skip


def make_sample(count: int = 40, *, text: str = "", labelled: bool = True) -> tuple[ImageSample, Views]:
    """A sample of squares of one colour with noise, in classes of ten, the last two of which are equal; and views."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 200, (count // 10, 1, 1, 3))
    crops = np.repeat(colours, 10, axis=0) + rng.integers(0, 50, (count, 24, 24, 3))
    crops[-1] = crops[-2]
    features = {
        name: torch.from_numpy(rng.normal(size=(count, 8)).astype(np.float32)) for name in (PIXELS, RUN)
    }  # fmt: skip
    crops = crops.astype(np.uint8)
    names, classes = [f"{text}{i:03}.jpg" for i in range(count)], [f"{text}{i}" for i in range(count // 10)]
    labels = np.arange(count) // 10
    known = (labels, classes) if labelled else (None, [])
    sample = ImageSample(np.arange(count), names, crops, features, *known, 5 * count)
    places = rng.integers(1, 9, 16)
    views = Views(np.arange(16), crops[:16], crops[:16, ::-1], places, rng.random(16).astype(np.float32))
    return sample, views


def make_pictures_of_page(*, text: str = "", labelled: bool = True) -> PagePictures:
    return page_pictures(*make_sample(text=text, labelled=labelled), step=40)
