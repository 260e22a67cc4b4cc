"""When a run resumes, it removes the records of later steps from its log, and nothing of the user's."""

import json

import pytest

from moco.recipe import Recipe
from moco.runs import read_last_values
from moco.train.pretrain import pretrain
from moco.train.read_log import read_records, remove_records_after
from moco.train.run_folder import RunFolder
from tests.train.helpers import Messages, losses, stop


def record(step: int) -> bytes:
    return json.dumps({"step": step, "epoch": step / 9, "loss": step / 3}).encode() + b"\n"


OURS = b"".join(map(record, range(1, 4)))


def test_records_of_later_steps_are_removed(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(OURS)
    assert remove_records_after(log, 2) is None
    assert log.read_bytes() == record(1) + record(2)
    assert remove_records_after(log, -1) is None
    assert log.read_bytes() == b""


@pytest.mark.parametrize("cut", [*range(1, len(record(4)) - 2), "zeros", "a record and zeros"])
def test_what_a_kill_or_a_power_failure_has_left_at_the_end_is_removed(tmp_path, cut):
    log, rest = tmp_path / "metrics.jsonl", {"zeros": bytes(9), "a record and zeros": record(4)[:15] + bytes(9)}
    log.write_bytes(OURS + (rest[cut] if isinstance(cut, str) else record(4)[:cut]))
    assert remove_records_after(log, 9) is None
    assert log.read_bytes() == OURS
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_whole_record_without_its_end_of_line_is_completed(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(OURS[:-1])
    assert remove_records_after(log, 3) is None
    assert log.read_bytes() == OURS


NOTES = [
    b"# lr was lowered here\n",
    b"\xff\xfe\n",
    b"[1, 2]\n",
    b'{"step": 2, "lo\n',
    b'{"step": ' + b"9" * 5000 + b"}\n",
    b'{"note": "lr was lowered here"}\n',
    b'{"step": "all", "epoch": 1.0}\n',
    b'{"step": 2, "what": "lr was lowered here"}\n',
    b'{"step": 9, "what": "lr was lowered here"}\n',
    b'{"step": true, "epoch": 1.0}\n',
]


@pytest.mark.parametrize("note", [*NOTES, b"without an end"])
def test_a_line_that_no_run_has_written_is_moved_to_a_file_of_its_own(tmp_path, note):
    log = tmp_path / "metrics.jsonl"
    content = OURS + note if not note.endswith(b"\n") else record(1) + note + record(2) + record(3)
    for number in ("", "1"):
        log.write_bytes(content)
        assert remove_records_after(log, 3) == f"metrics.jsonl.other{number}"
        assert (tmp_path / f"metrics.jsonl.other{number}").read_bytes() == note
        assert log.read_bytes() == OURS


def test_a_record_that_was_written_again_in_another_form_stays_as_it_is(tmp_path):
    log, again = tmp_path / "metrics.jsonl", b'{"epoch":0,"step":1,  "loss" : 0.5}\n'
    log.write_bytes(again + record(3))
    assert remove_records_after(log, 2) is None
    assert log.read_bytes() == again


@pytest.mark.parametrize("note", NOTES)
def test_only_records_are_read(tmp_path, note):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(record(1) + note)
    assert [one["step"] for one in read_records(log)] == [1]


def test_numbers_that_are_no_floats_are_not_records(tmp_path):
    log = tmp_path / "metrics.jsonl"
    for name in ("step", "loss", "knn"):
        log.write_bytes(record(1) + b'{"step": 2, "epoch": 0, "%s": 1%s}\n' % (name.encode(), b"0" * 400))
        assert read_records(log) == [{"step": 1, "epoch": 1 / 9, "loss": 1 / 3}]
    (tmp_path / "recipe.json").write_text(Recipe(name="x").to_json())
    assert read_last_values(RunFolder(tmp_path))["step"] == 1


def test_a_resumed_run_reports_where_the_lines_are(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "whole", recipe=tiny)
    out, messages = stop(pictures, tmp_path / "run", tiny), Messages()
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(NOTES[0])
    pretrain(pictures, out, recipe=tiny, reporter=messages)
    assert any("metrics.jsonl.other" in line for line in messages.lines)
    assert (out / "metrics.jsonl.other").read_bytes() == NOTES[0]
    assert losses(out) == losses(tmp_path / "whole")
