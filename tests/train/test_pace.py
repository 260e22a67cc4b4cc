"""How long a run takes, told from its first steps."""

from moco.train.pace import Pace


def told(pace: Pace, clock: list[float], times: list[float]) -> list[str]:
    """What is told, where step i of this process ends at times[i]."""
    said: list[str | None] = []
    for i, moment in enumerate(times):
        clock[0] = moment
        said.append(pace.estimate(pace.first_step + i + 1))
    return [text for text in said if text]


def test_the_estimate_is_reported_once_and_excludes_the_first_step():
    clock = [0.0]
    said = told(Pace(0, 61, now=lambda: clock[0]), clock, [100.0, 102.0, 104.0, 106.0, 108.0, 110.0])
    # steps 2, 3, 4 take 2 s each: 6 s, and 57 more steps 114 s
    assert said == ["this run takes about 2 min 0 s, estimated from the first 3 steps (2 s each)"]


def test_a_resumed_run_estimates_the_rest():
    clock = [0.0]
    said = told(Pace(1000, 1011, now=lambda: clock[0]), clock, [1.0, 11.0])
    assert said == ["the rest of this run takes about 1 min 40 s, estimated from the first step (10 s each)"]


def test_the_pace_of_the_eta_leaves_out_the_first_step_and_pauses():
    clock = [0.0]
    pace = Pace(10, 100, now=lambda: clock[0])
    for step, moment in ((11, 100.0), (12, 102.0)):
        clock[0] = moment
        pace.estimate(step)
    assert pace.each(11) is None
    assert pace.each(12) == 2.0
    pace.pause(5.0)  # a score
    clock[0] = 111.0
    assert pace.each(13) == 3.0  # 11 s less 5 s, two steps


def test_a_short_run_has_no_estimate():
    clock = [0.0]
    assert told(Pace(0, 8, now=lambda: clock[0]), clock, [0.0, 2.0, 4.0, 6.0, 8.0]) == []
