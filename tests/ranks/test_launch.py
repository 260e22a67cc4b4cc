"""The command on two ranks, as people start it: `--devices 2`, and torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launch_workers import second_fails, second_is_killed, shows_the_folder
from run_ranks import Ranks

from moco.launch import environment, launch
from moco.recipe import RecipeError
from moco.stop_signals import STOP_SIGNALS
from moco.train import checkpoint
from moco.train.pretrain import pretrain
from moco.train.rank_sync import ranks_for
from moco.train.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
MOCO = [sys.executable, "-m", "moco"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture
def command(pictures, tiny, tmp_path) -> list[str]:
    """`pretrain` of 40 steps on two ranks, with a checkpoint every 5."""
    file = tmp_path / "recipe.json"
    changes = {"method.bn_groups": 2, "compute.threads": 1, "optim.epochs": 8}
    file.write_text(tiny.but("launched", changes).to_json())
    return ["pretrain", str(pictures), "--recipe", str(file), "--workers", "0", "--save-every", "5"]


def start(*command: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_step(out: Path, step: int) -> None:
    end = time.monotonic() + 120
    while not any(record.get("step", 0) >= step for record in RunFolder(out).metrics()):
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.005)


def children(process: int) -> list[int]:
    """The ranks that a launcher has started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, args in rows if int(parent) == process and "resource_tracker" not in args]


def ended(out: Path) -> tuple[bytes, list]:
    state = checkpoint.read_checkpoint(checkpoint.newest_intact(out / "checkpoints"))["state"]["model"]
    logged = [(record["step"], record["loss"]) for record in RunFolder(out).metrics()]
    return b"".join(x.numpy().tobytes() for x in state.values()), logged


def whole_run(command: list[str], out: Path) -> tuple[bytes, list]:
    """How the run ends, on ranks forked from here; one that has begun goes on."""
    pictures, recipe = command[1], command[3]
    assert Ranks(lambda _: pretrain(pictures, out, recipe=recipe, workers=0), 2).wait() == [0, 0]
    return ended(out)


def test_a_signal_stops_the_ranks_of_devices_and_other_ranks_resume_with_the_same_bits(command, tmp_path):
    out = tmp_path / "run"
    launcher = start(*MOCO, *command, "--out", str(out), "--devices", "2")
    until_step(out, 3)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate()
    assert launcher.returncode == 75, said
    assert said.count("stopped by SIGTERM after step") == 1
    assert said.count("== plan") == 1
    assert "Traceback" not in said
    assert whole_run(command, out) == whole_run(command, tmp_path / "whole")


def test_torchrun_restarts_the_ranks_when_one_is_killed_and_they_end_with_the_same_bits(command, tmp_path):
    out = tmp_path / "run"
    torchrun = start(
        *TORCHRUN, "--max-restarts", "1", "-m", "moco", *command, "--out", str(out), "--overwrite", "--json"
    )
    until_step(out, 15)
    os.kill(children(torchrun.pid)[1], signal.SIGKILL)
    told, said = torchrun.communicate()
    assert torchrun.returncode == 0, said
    assert "resuming" in said
    assert json.loads(told)["step"] == 40  # one object: rank 0's
    assert ended(out) == whole_run(command, tmp_path / "whole")


@pytest.mark.parametrize(("work", "code"), [(second_fails, 3), (second_is_killed, -signal.SIGKILL)])
def test_launch_returns_the_exit_code_of_the_first_rank_that_fails(work, code, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    began = time.monotonic()
    assert launch(work, 2) == code
    assert time.monotonic() - began < 55  # rank 0 would work for 60 s
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_the_folder_of_the_store_is_private_and_is_removed(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert launch(shows_the_folder, 2) == 0
    assert capfd.readouterr().out.split() == ["0o700"] * 2
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_one_machine_use_the_loopback_interface_unless_another_is_named(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    variables = environment(1, 2, Path("store"))
    assert variables["GLOO_SOCKET_IFNAME"] in {name for _, name in socket.if_nameindex() if name.startswith("lo")}
    assert "NCCL_SOCKET_IFNAME" not in variables


@pytest.mark.parametrize("devices", ["0", "-1", "two", "1.5", ""])
def test_devices_must_be_a_number_or_auto(devices):
    with pytest.raises(RecipeError, match="--devices expects a number or auto"):
        ranks_for(devices, "cpu")


def test_devices_is_a_number_or_the_number_of_gpus(monkeypatch):
    assert ranks_for(None, "auto") == 1
    assert ranks_for("3", "cpu") == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (ranks_for("auto", "auto"), ranks_for("2", "cuda"), ranks_for("auto", "cpu")) == (2, 2, 1)
    with pytest.raises(RecipeError, match="more GPUs than the 2"):
        ranks_for("3", "auto")


def test_devices_with_torchrun_must_be_its_number_of_ranks(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks_for("2", "cpu") == ranks_for("auto", "cpu") == ranks_for(None, "cpu") == 1
    with pytest.raises(RecipeError, match="--devices 4 was given to one of 2 ranks"):
        ranks_for("4", "cpu")
