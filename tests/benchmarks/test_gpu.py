"""`python -m benchmarks.gpu`, dry: every part runs at toy size on a CPU, and a failure loses no other result."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.results import read_tests, to_markdown
from benchmarks.gpu.timing import Bench, Measurement, Part, compare

TOY = Bench(torch.device("cpu"), toy=True, rounds=2)


@pytest.mark.slow
def test_a_dry_run_measures_every_part(tmp_path):
    root = Path(gpu.__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [one for one in results["measured"] if "error" in one] == []
    assert sum(f"{name}: " in done.stdout for name in gpu.PARTS) == len(gpu.PARTS)
    assert (tmp_path / "gpu.md").read_text() in done.stdout


def test_a_failing_variant_or_part_loses_no_other_result(tmp_path, monkeypatch, capsys):
    def fails() -> None:
        raise RuntimeError("out of memory\nmore lines")

    def variants(bench: Bench) -> Iterator[Measurement]:
        yield from compare("sums", {"bad": lambda: fails, "good": lambda: lambda: sum(range(1000))}, bench)

    def broken(bench: Bench) -> Iterator[Measurement]:
        yield Measurement("broken", "first", 1.0, 1.0, 1.0)
        raise ValueError("no such card")

    parts = {"broken": Part("broken", broken), "variants": Part("variants", variants)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.run_parts(["broken", "variants"], TOY, tmp_path / "timed-x.json", end=float("inf"))
    found = json.loads((tmp_path / "timed-x.json").read_text())
    assert [(one["variant"], one.get("error")) for one in found] == [
        ("first", None), ("", "ValueError: no such card"), ("bad", "RuntimeError: out of memory"), ("good", None),
    ]  # fmt: skip
    assert "no such card" in capsys.readouterr().out
    gpu.write_results(gpu.collect(tmp_path, seconds=3), tmp_path)
    assert "| failed: RuntimeError: out of memory |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_has_no_time_left_says_so(tmp_path):
    gpu.run_parts(["ceilings"], TOY, tmp_path / "timed-x.json", end=0)
    assert "no time was left" in (tmp_path / "timed-x.json").read_text()


def test_without_a_gpu_the_command_says_what_to_add(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main()
    assert "--dry" in capsys.readouterr().err


def test_the_tests_outcomes_are_read_from_pytests_report(tmp_path):
    report = """<testsuites><testsuite>
      <testcase classname="tests.gpu.test_a" name="one">
        <properties><property name="bits" value="7"/></properties>
      </testcase>
      <testcase classname="tests.gpu.test_a" name="two"><failure message="1 != 2">...</failure></testcase>
      <testcase classname="tests.gpu.test_a" name="three"><skipped message="no card"/></testcase>
    </testsuite></testsuites>"""
    (tmp_path / "tests.xml").write_text(report)
    tests = read_tests(tmp_path / "tests.xml")
    assert [one["outcome"] for one in tests] == ["passed", "failure", "skipped"]
    assert tests[0]["recorded"] == {"bits": "7"}
    table = to_markdown({"machine": gpu.machine(), "seconds": 1, "measured": [], "tests": tests})
    assert "1 of 3 passed" in table
    assert "1 != 2" in table
