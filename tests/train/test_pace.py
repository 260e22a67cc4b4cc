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


def test_steps_while_kernels_are_loaded_are_left_out():
    clock, loading = [0.0], [True]
    pace = Pace(0, 101, now=lambda: clock[0], warming_up=lambda: loading[0])
    assert told(pace, clock, [10.0, 20.0, 30.0]) == []  # 10 s each
    assert pace.each(3) is None
    loading[0] = False
    said: list[str | None] = []
    for step in range(4, 10):
        clock[0] += 1.0
        said.append(pace.estimate(step))
        assert pace.each(step) == 1.0
    # 20 s for the two slow steps after the first one, 5 s for five more, and 93 steps of 1 s
    assert [text for text in said if text] == [
        "this run takes about 1 min 58 s, estimated from the first 5 steps (1 s each)"
    ]
