"""What a run does at a step that is not finite: stop, or skip it."""

import json
import math
import os
from collections.abc import Callable

import pytest
from torch import Tensor

from moco.recipe import RecipeError
from moco.train import pretrain as pretraining
from moco.train.after_step import AfterStep
from moco.train.checkpoint import read_checkpoint
from moco.train.nan_guard import Diverged, NanGuard
from moco.train.options import allowed_skips
from moco.train.pretrain import pretrain

NAN = float("nan")


@pytest.mark.parametrize(("value", "skips"), [("stop", 0), ("skip:1", 1), ("skip:250", 250)])
def test_on_nan_sets_the_number_of_steps_that_may_be_skipped(value, skips):
    assert allowed_skips(value) == skips


@pytest.mark.parametrize("value", ["", "skip", "skip:", "skip:0", "skip:-1", "stop:3", "skip:1.5"])
def test_another_value_of_on_nan_is_refused(value):
    with pytest.raises(RecipeError, match="expects stop, or skip:N"):
        allowed_skips(value)


class TestRun:
    """The NaN guard in a run."""

    @pytest.fixture
    def spoil(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Makes the loss of some steps NaN, every time they are run."""

        def at(*steps: int) -> None:
            check_step = NanGuard.check_step
            monkeypatch.setattr(
                NanGuard, "check_step",
                lambda guard, loss, keys, ids: check_step(
                    guard, loss * (NAN if guard.state.clock.step in steps else 1), keys, ids
                ),
            )  # fmt: skip

        return at

    @pytest.mark.parametrize(("log_every", "logged"), [(1, [1, 2, 3, 5, 6, 8, 10]), (5, [5, 10])])
    def test_skip_n_skips_n_steps_and_a_resumed_run_counts_on(
        self, pictures, tiny, tmp_path, spoil, monkeypatch, log_every, logged
    ):
        monkeypatch.setattr(pretraining, "AfterStep", lambda **named: AfterStep(**named | {"log_every": log_every}))
        spoil(3, 6, 8)
        with pytest.raises(Diverged, match="step 9"):
            pretrain(pictures, tmp_path / "run", recipe=tiny, save_every=1, on_nan="skip:2")
        with pytest.raises(Diverged, match="step 9"):
            pretrain(pictures, tmp_path / "run", recipe=tiny, on_nan="skip:2")
        run = pretrain(pictures, tmp_path / "run", recipe=tiny, on_nan="skip:3")
        assert [record["step"] for record in run.metrics() if "loss" in record] == logged
        assert [(record["step"], record["skipped"]) for record in run.metrics() if "skipped" in record] == [
            (4, 1), (7, 2), (9, 3),
        ]  # fmt: skip

    def test_the_report_has_the_images_and_the_state_before_the_step(self, pictures, tiny, tmp_path, spoil):
        spoil(7)
        with pytest.raises(Diverged, match=r"nan.step_00000007"):
            pretrain(pictures, tmp_path / "run", recipe=tiny)
        place = tmp_path / "run" / "nan" / "step_00000007"
        facts = json.loads((place / "facts.json").read_text(), parse_constant=pytest.fail)  # NaN is not JSON
        assert facts["not_finite"] == ["loss"]
        assert facts["losses"][-1] == "nan"
        assert all(loss > 0 for loss in facts["losses"][:-1])
        assert all((pictures / name).is_file() for name in facts["images"])
        assert len(set(facts["images"])) == 8
        assert read_checkpoint(place / "checkpoint.pt")["state"]["clock"]["step"] == 7

    @pytest.mark.parametrize("kind", ["file", "pipe"])
    def test_a_report_that_cannot_be_written_does_not_hide_why_the_run_has_stopped(
        self, pictures, tiny, tmp_path, spoil, kind, monkeypatch
    ):
        spoil(7)
        place = tmp_path / "run" / "nan" / "step_00000007"
        save = AfterStep.save

        def save_and_disturb(self, state, *, must=False, wait=False):
            (tmp_path / "run" / "nan").mkdir()
            place.write_text("mine") if kind == "file" else os.mkfifo(place)
            return save(self, state, must=must, wait=wait)

        monkeypatch.setattr(AfterStep, "save", save_and_disturb)
        with pytest.raises(
            Diverged, match=r"step 8: loss .*discarded.*report of the step could not be written.*lower learning rate"
        ):
            pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert kind == "pipe" or place.read_text() == "mine"

    def test_a_report_is_not_written_through_a_link(self, pictures, tiny, tmp_path, spoil):
        spoil(7)
        theirs = tmp_path / "theirs"
        theirs.write_text("mine")
        place = tmp_path / "run" / "nan" / "step_00000007"
        with pytest.raises(Diverged):
            pretrain(pictures, tmp_path / "run", recipe=tiny)
        (place / "checkpoint.pt").unlink()
        (place / "checkpoint.pt").symlink_to(theirs)
        with pytest.raises(Diverged):
            pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert theirs.read_text() == "mine"

    def test_the_same_command_repeats_the_discarded_step(self, pictures, tiny, tmp_path, spoil):
        spoil(7)
        for _ in range(2):
            with pytest.raises(Diverged, match="step 8"):
                pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert read_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000007.pt")["state"]["clock"]["step"] == 7

    def test_a_state_that_is_not_finite_is_not_saved_and_the_message_says_so(self, pictures, tiny, tmp_path, spoil):
        spoil(2)
        check_step = NanGuard.check_step

        def check_rotten(guard: NanGuard, *arguments: Tensor) -> bool:
            if guard.state.clock.step == 1:
                next(iter(guard.trained)).data[0] = math.inf
                return True
            return check_step(guard, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NanGuard, "check_step", check_rotten)
            with pytest.raises(Diverged, match="was not saved: not finite after step 2: encoder"):
                pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert not any((tmp_path / "run" / "checkpoints").glob("*.pt"))

    @pytest.mark.parametrize("log_every", [1, 1000])
    def test_a_gradient_that_stays_nan_ends_a_run_with_fp16_too(self, pictures, tiny, tmp_path, monkeypatch, log_every):
        """The scaler skips each step and halves its scale: 65,536 to 1/2 in 17 steps."""
        check_step = NanGuard.check_step

        def check_spoilt(guard: NanGuard, *arguments: Tensor) -> bool:
            guard.trained[0].grad.fill_(NAN)
            return check_step(guard, *arguments)

        monkeypatch.setattr(NanGuard, "check_step", check_spoilt)
        monkeypatch.setattr(pretraining, "AfterStep", lambda **named: AfterStep(**named | {"log_every": log_every}))
        recipe = tiny.but(None, {"optim.epochs": 5, "compute.precision": "fp16"})
        with pytest.raises(Diverged, match=r"after step 17 the scale .* 0\.5: .* --precision fp32"):
            pretrain(pictures, tmp_path / "run", recipe=recipe, save_every=1)
        assert not (tmp_path / "run" / "encoder").exists()
        there = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.pt"))
        assert there[-1] == "step_00000016.pt"
