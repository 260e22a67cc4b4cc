"""What a run does at a step that is not finite: stop, or skip it."""

import json
import math
from collections.abc import Callable

import pytest
from torch import Tensor

from moco.recipe import RecipeError
from moco.train import pretrain as pretraining
from moco.train.after_step import Watch
from moco.train.checkpoint import read_checkpoint
from moco.train.nan_guard import Diverged, Gate
from moco.train.nan_report import allowed_skips
from moco.train.pretrain import pretrain

NAN = float("nan")


@pytest.mark.parametrize(("said", "skips"), [("stop", 0), ("skip:1", 1), ("skip:250", 250)])
def test_what_on_nan_says(said, skips):
    assert allowed_skips(said) == skips


@pytest.mark.parametrize("said", ["", "skip", "skip:", "skip:0", "skip:-1", "stop:3", "skip:1.5"])
def test_what_on_nan_cannot_mean_is_refused_with_what_it_can(said):
    with pytest.raises(RecipeError, match="expects stop, or skip:N"):
        allowed_skips(said)


class TestRun:
    """The gate in a run."""

    @pytest.fixture
    def spoil(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Makes the loss of some steps NaN, each time they come."""

        def at(*steps: int) -> None:
            admits = Gate.admits
            monkeypatch.setattr(
                Gate, "admits",
                lambda gate, loss, keys, ids: admits(
                    gate, loss * (NAN if gate.state.clock.step in steps else 1), keys, ids
                ),
            )  # fmt: skip

        return at

    @pytest.mark.parametrize(("log_every", "logged"), [(1, [1, 2, 3, 5, 6, 8, 10]), (5, [5, 10])])
    def test_skip_goes_on_and_the_count_survives_a_restart(
        self, pictures, tiny, tmp_path, spoil, monkeypatch, log_every, logged
    ):
        monkeypatch.setattr(pretraining, "Watch", lambda **named: Watch(**named | {"log_every": log_every}))
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

    def test_the_bundle_has_the_images_and_the_state_before(self, pictures, tiny, tmp_path, spoil):
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

    def test_the_same_command_makes_the_same_step_again(self, pictures, tiny, tmp_path, spoil):
        spoil(7)
        for _ in range(2):
            with pytest.raises(Diverged, match="step 8"):
                pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert read_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000007.pt")["state"]["clock"]["step"] == 7

    def test_a_state_that_is_not_finite_is_not_saved_and_the_message_says_so(self, pictures, tiny, tmp_path, spoil):
        spoil(2)
        admits = Gate.admits

        def rotten(gate: Gate, *arguments: Tensor) -> bool:
            if gate.state.clock.step == 1:
                next(iter(gate.trained)).data[0] = math.inf
                return True
            return admits(gate, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gate, "admits", rotten)
            with pytest.raises(Diverged, match="was not saved: not finite after step 2: encoder"):
                pretrain(pictures, tmp_path / "run", recipe=tiny)
        assert not any((tmp_path / "run" / "checkpoints").glob("*.pt"))

    @pytest.mark.parametrize("log_every", [1, 1000])
    def test_a_gradient_that_is_nan_for_good_is_reported_with_fp16_too(
        self, pictures, tiny, tmp_path, monkeypatch, log_every
    ):
        """The scaler leaves out each step, and its scale is halved each time: 65,536 to 1/2 in 17 steps."""
        admits = Gate.admits

        def spoilt(gate: Gate, *arguments: Tensor) -> bool:
            gate.trained[0].grad.fill_(NAN)
            return admits(gate, *arguments)

        monkeypatch.setattr(Gate, "admits", spoilt)
        monkeypatch.setattr(pretraining, "Watch", lambda **named: Watch(**named | {"log_every": log_every}))
        recipe = tiny.but(None, {"optim.epochs": 5, "compute.precision": "fp16"})
        with pytest.raises(Diverged, match=r"after step 17 the scale .* 0\.5: .* --precision fp32"):
            pretrain(pictures, tmp_path / "run", recipe=recipe, save_every=1)
        assert not (tmp_path / "run" / "encoder").exists()
        there = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.pt"))
        assert there[-1] == "step_00000016.pt"
