"""Verdicts on constructed measurements."""

from dataclasses import replace
from typing import Any

import pytest

from moco.diagnose.history import measure_waiting_share, measurements
from moco.diagnose.measure import Measurement
from moco.diagnose.verdicts import Diagnosis, Evidence, judge_evidence

START = Measurement(
    probe=1024, images=12_000, distinct=12_000.0, blank=0.0, dim=128, spread=0.4, rank=41.0, feature_rank=37.0,
    lidar=49.0, clusters=0.07, agreement=0.88, found=0.02, own=0.01, apart=0.01, leak_error=0.003, stored=None,
    fresh=None, stale_error=None, follows=1.0, steady=0.7, update=0.0, keys=4096, own_negatives=0.06, patch_rank=40.0,
    patch_rank_error=0.3, patch_separability=0.27,
)  # fmt: skip
HEALTHY = replace(
    START, spread=0.6, rank=26.0, found=0.08, own=0.08, apart=0.07, leak_error=0.008, stored=0.35, fresh=0.07,
    stale_error=0.014, follows=0.7, steady=0.99, update=0.002, patch_rank=48.0,
)  # fmt: skip


def judged(total: int = 1000, waiting: float | None = None, **changes: Any) -> Diagnosis:
    """The diagnosis of a healthy run that differs in some signals from the first step on."""
    steps = [(step, replace(HEALTHY, found=HEALTHY.found + step / 20_000)) for step in (200, 400, 600, 800, 1000)]
    measured = [(0, START), *((step, replace(one, **changes)) for step, one in steps)]
    return judge_evidence(Evidence(measured, total, waiting))


def test_a_healthy_run_has_no_fault():
    found = judged()
    assert not found.classification.fault
    assert not found.dense.fault
    assert not found.others


FAULTS: dict[str, dict[str, Any]] = {
    "collapsed": {"spread": 0.03},
    "copies": {"distinct": 1200.0, "own_negatives": 3.1},
    "false negatives": {"own_negatives": 1.5},
    "BN leak": {"own": 0.15, "apart": 0.04, "leak_error": 0.012},
    "learning rate too high": {"rank": 6.0, "update": 0.016},
    "stale keys": {"found": 0.014, "follows": 1.0, "stored": 0.12, "fresh": 0.01},
    "learns little": {"found": 0.021},
}


@pytest.mark.parametrize("word", FAULTS)
def test_each_fault_has_its_verdict_and_a_setting_to_change(word):
    found = judged(**FAULTS[word])
    assert found.word == word
    assert found.classification.fault
    assert found.classification.advice


def test_statistics_that_lag_show_a_learning_rate_that_is_too_high_only_with_large_updates():
    assert judged(steady=0.4, update=0.02).word == "learning rate too high"
    assert not judged(steady=0.4, update=0.002).classification.fault
    assert not judged(steady=0.95, update=0.02).classification.fault


def test_a_run_that_waits_for_images_is_starved():
    assert judged(waiting=0.6).word == "starved"
    assert judged(waiting=0.1).word != "starved"


def test_queries_that_find_own_keys_by_chance_only_are_a_collapse():
    assert judged(found=1 / 1024, spread=0.3).collapsed
    assert not judged(found=20 / 1024, spread=0.3).collapsed
    assert not judged(found=1 / 1024, spread=0.9).collapsed  # a key encoder that lags, for example
    assert not judged(found=1 / 128, spread=0.3, probe=128).collapsed


def test_a_collapse_by_copies_is_a_collapse_too():
    found = judged(distinct=1.0, spread=0.05, own_negatives=4096.0)
    assert found.word == "copies"
    assert found.collapsed
    assert found.dense.word == "collapsed"


@pytest.mark.parametrize("word", ["BN leak", "learning rate too high", "stale keys", "learns little"])
def test_in_the_warm_up_only_images_and_a_collapse_are_judged(word):
    assert judged(total=10_000, **FAULTS[word]).word == "warming up"


def test_a_difference_within_its_standard_error_is_no_leak():
    assert judged(own=0.05, apart=0.02, leak_error=0.011).word != "BN leak"


def test_the_rank_may_fall_at_first_and_not_by_half_later():
    early = [(0, START), (200, replace(HEALTHY, rank=60.0)), (400, HEALTHY), (1000, HEALTHY)]
    late = [(0, START), (200, HEALTHY), (400, replace(HEALTHY, rank=60.0)), (1000, HEALTHY)]
    assert not judge_evidence(Evidence(early, 1000)).classification.fault
    assert "60.0 at step 400" in judge_evidence(Evidence(late, 1000)).classification.sentence


def test_more_own_keys_than_before_are_still_learning_and_as_many_a_plateau():
    before, now = (700, HEALTHY), (1000, replace(HEALTHY, found=0.2))
    assert judge_evidence(Evidence([(0, START), (760, HEALTHY), now], 1000)).word == "still learning"
    assert judge_evidence(Evidence([(0, START), before, (760, now[1]), now], 1000)).word == "plateau"


def test_measurements_on_other_probe_sets_are_not_compared():
    small = replace(HEALTHY, probe=128, found=0.4, rank=20.0)
    assert judge_evidence(
        Evidence([(0, replace(START, probe=128, found=0.2)), (900, small), (1000, HEALTHY)], 1000)
    ).word == ("healthy")


def test_a_fall_of_the_patches_dimensions_is_past_the_best_for_dense_tasks():
    measured = [(0, START), (400, HEALTHY), (1000, replace(HEALTHY, found=0.2, patch_rank=30.0))]
    found = judge_evidence(Evidence(measured, 1000))
    assert (found.classification.word, found.dense.word) == ("plateau", "past its best") or found.dense.fault
    assert "step 400" in found.dense.advice


def test_a_missing_signal_is_no_fault():
    none = dict.fromkeys(("own", "apart", "leak_error", "stored", "fresh", "stale_error", "follows", "update"))
    found = judged(**none, patch_rank=None, patch_rank_error=None)
    assert not found.classification.fault
    assert found.dense.word == "not measured"


def test_a_measurement_is_restored_from_its_record():
    record = {"step": 7, "probe": HEALTHY.to_dict()}
    assert measurements([{"step": 3, "loss": 1.0}, record, {"step": 9, "probe": {"rank": 3}}]) == [(7, HEALTHY)]


def test_the_share_of_waiting_is_of_the_second_half_of_the_last_start():
    def record(seconds: float, waited: float) -> dict[str, float]:
        return {"seconds": seconds, "seconds_waited": waited}

    before = [record(100, 90), record(200, 180)]
    last = [record(10, 9), record(20, 10), record(30, 11), record(40, 15)]
    assert measure_waiting_share(before + last) == pytest.approx((15 - 10) / (40 - 20))
    assert measure_waiting_share([record(1, 1), record(2, 2)]) is None


def test_copies_are_named_before_the_queue_has_keys_of_images():
    measured = [(0, replace(START, distinct=1200.0, keys=0, own_negatives=0.0))]
    text = str(judge_evidence(Evidence(measured, 1000, None)).classification)
    assert "about 1,200 different pictures; copies of a query's picture count as negatives." in text
    assert "0 keys" not in text
