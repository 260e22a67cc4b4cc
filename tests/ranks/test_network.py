"""What a run opens to the network: nothing in one process, the loopback interface alone on several ranks."""

import sys
from pathlib import Path

import pytest
from sample_pictures import make_pictures
from watch_network import Seen, can_unshare, watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
MOCO = [sys.executable, "-m", "moco"]
in_a_network_of_its_own = pytest.mark.skipif(not can_unshare(), reason="this user may make no network of its own")


@pytest.fixture
def run(tiny, tmp_path) -> list[str]:
    """`pretrain` of 5 steps."""
    images, recipe = make_pictures(tmp_path / "images", 40, classes=2), tmp_path / "recipe.json"
    recipe.write_text(tiny.but("short", {"method.bn_groups": 2, "optim.epochs": 1, "compute.threads": 1}).to_json())
    return [*MOCO, "pretrain", str(images), "--recipe", str(recipe), "--out", str(tmp_path / "run"), "--workers", "1"]


def seen_of(*commands: list[str]) -> Seen:
    """What these commands do, one after the other, in a network of their own."""
    line = " && ".join(" ".join(command) for command in commands)
    return watched(["sh", "-c", line], OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))


@in_a_network_of_its_own
def test_two_ranks_listen_on_the_loopback_interface_only_and_look_up_no_name(run):
    seen = seen_of([*run, "--devices", "2"])
    assert seen.code == 0, seen.output
    assert (seen.away, seen.listening) == ([], {"127.0.0.1"})  # gloo's, of rank to rank
    assert {name: count for name, count in seen.counts.items() if count and name != "Tcp:ActiveOpens"} == {}


@in_a_network_of_its_own
def test_one_process_opens_no_socket_in_training_embedding_and_evaluation(run, tmp_path):
    trained, images = str(tmp_path / "run"), run[4]
    seen = seen_of(
        run,
        [*MOCO, "embed", trained, images, "--to", str(tmp_path / "features.npy"), "--workers", "1"],
        [*MOCO, "eval", "knn", trained, images, "--workers", "1"],
    )
    assert seen.code == 0, seen.output
    assert seen.listening == set()
    assert not any(seen.counts.values()), seen.counts
