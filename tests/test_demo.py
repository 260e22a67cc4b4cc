"""`moco demo` writes scores and pictures into its run folder, and replaces only those that the run has written."""

import json
from unittest.mock import Mock

import pytest

from moco import demo
from moco.evaluate.evaluate import Subjects
from moco.evaluate.table import Table
from moco.train.result_files import check_results, finish_run, write_result
from moco.train.run_folder import RunFolder
from tests.train.helpers import Messages

NAMES = ("scores.json", "neighbours.png", "curves.png")


TABLE = Mock(spec=Table, chance=10.0, to_dict=lambda: {"rows": [1]})
AMONG = Mock(spec=Subjects)


@pytest.fixture
def run(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(demo, "draw_neighbours", lambda out, among: out.write_text("neighbours of the demo"))
    monkeypatch.setattr(demo, "curves", lambda records, recipe, out, chance: out.write_text("curves of the demo"))
    run = RunFolder(tmp_path)
    run.recipe_file.write_text(tiny.to_json())
    run.record_start()
    numbers = dict.fromkeys(("images", "bad_images", "steps", "epochs", "seconds"), 1)
    finish_run(run, {"encoder/model.safetensors": b"weights", "encoder/config.json": b"{}"}, numbers)
    return run


def test_files_of_the_user_stay(run):
    for name in NAMES:
        (run.path / name).write_text("mine")
    messages = Messages()
    demo.write_results(run, TABLE, AMONG, messages)
    assert [(run.path / name).read_text() for name in NAMES] == ["mine"] * 3
    assert [sum(name in line and "stays" in line for line in messages.lines) for name in NAMES] == [1, 1, 1]


def test_what_the_run_has_written_is_replaced(run):
    write_result(run, "curves.png", lambda out: out.write_text("curves of the run"))
    for _ in range(2):
        demo.write_results(run, TABLE, AMONG, Messages())
        assert (run.path / "curves.png").read_text() == "curves of the demo"
        assert (run.path / "neighbours.png").read_text() == "neighbours of the demo"
        assert json.loads((run.path / "scores.json").read_text()) == {"rows": [1]}
    check_results(run)
    assert not list(run.path.glob(".tmp*"))


def test_a_link_is_not_followed(run, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (run.path / "curves.png").symlink_to(tmp_path / "elsewhere")
    assert not write_result(run, "curves.png", lambda out: out.write_text("x"))
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_list_of_pictures_alone_does_not_hide_the_encoders_checksums(run):
    (run.path / "saved.json").unlink()
    write_result(run, "curves.png", lambda out: out.write_text("x"))
    check_results(run)
