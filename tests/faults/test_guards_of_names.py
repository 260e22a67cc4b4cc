"""Without a guard of names, of changing images or of text, tries are lost. With it none are: see test_matrix.py."""

import os
import re
import sys

import pytest

from moco.data.check import check
from moco.data.decode import decode
from moco.data.loader import bad_images
from moco.data.sources import folder, walk
from moco.train import console, plan_run, resume
from moco.weights import model_card
from tests.faults import changed_images, text_injection, unusual_names
from tests.faults.matrix import Tally

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")]


def lost(tally: Tally) -> int:
    assert tally.tried == tally.survived + tally.lost > 0
    return tally.lost


def test_without_checking_file_types_other_things_are_taken_for_images(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.stat, "S_ISREG", lambda mode: True)
    assert lost(unusual_names.odd_files(3, tmp_path)) == 3


def test_opening_a_fifo_without_nonblock_hangs(tmp_path, monkeypatch):
    """The child is ended after 5 seconds."""
    os.mkfifo(tmp_path / "x.jpg")

    def opened() -> bool:
        with pytest.raises(decode.BadImage):
            decode.decode(tmp_path / "x.jpg")
        return True

    assert unusual_names.in_child(opened, seconds=5) is not None
    monkeypatch.setattr(decode, "_FLAGS", os.O_RDONLY)
    assert unusual_names.in_child(opened, seconds=5) is None


def test_without_escapes_names_are_printed_raw(tmp_path, monkeypatch):
    acting = unusual_names.Odd("broken", lambda place: (place / "\x1b[2J.png").write_bytes(b"x"), bad="not a JPEG")
    monkeypatch.setattr(unusual_names, "ODDS", [acting])
    assert lost(unusual_names.odd_files(1, tmp_path)) == 0
    monkeypatch.setattr(check, "escape", lambda name: name)
    assert lost(unusual_names.odd_files(1, tmp_path)) == 1


def test_without_the_manifest_a_run_resumes_with_other_images(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "changes_since", lambda file, now: [])
    assert lost(changed_images.changed(3, tmp_path)) == 3


def test_without_sorting_the_order_is_the_disks(tmp_path, monkeypatch):
    for module in (walk, folder):
        monkeypatch.setattr(module, "sorted", lambda found, **_: list(found), raising=False)
    assert lost(changed_images.reordered(5, tmp_path)) > 0


def test_without_checking_the_number_of_images_too_few_are_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_run, "check_fits", lambda recipe, count: None)
    assert lost(changed_images.too_few(6, tmp_path)) == 1


def test_without_guarded_cells_bad_images_are_formulas(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_images, "guard_cell", lambda cell: cell)
    monkeypatch.setattr(text_injection, "PAYLOADS", ["=1+1"])
    monkeypatch.setattr(text_injection, "PLACES", ["class"])
    assert lost(text_injection.injected(1, tmp_path)) == 1


def test_without_escapes_a_run_prints_raw(tmp_path, monkeypatch):
    monkeypatch.setattr(console, "one_line", lambda line: line)
    monkeypatch.setattr(text_injection, "PAYLOADS", ["\x1b[2J"])
    monkeypatch.setattr(text_injection, "PLACES", ["run"])
    assert lost(text_injection.injected(1, tmp_path)) == 1


def test_without_code_spans_a_fact_is_markup():
    facts = f"- {model_card.code_span('`<script>alert(1)<script>`')}"
    assert text_injection.is_plain_markdown(facts, "<script>")
    assert not text_injection.is_plain_markdown(re.sub("`", "", facts), "<script>")
