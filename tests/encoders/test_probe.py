"""Modules that cannot be trained are found before the run, and wrapped ones train as the module inside."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import moco
from moco.encoders import build, build_headless
from moco.recipe import EncoderSpec, RecipeError
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from moco.train.stop_on_signals import Stopped
from tests.train.helpers import StopAt, assert_same, final_state

CUSTOM = EncoderSpec(name="custom", head="linear", dim=4)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


class Changing(nn.Module):
    """Its output depends on its mode."""

    def __init__(self, in_training: str) -> None:
        super().__init__()
        self.net, self.in_training = plain(), in_training

    def forward(self, x: Tensor) -> object:
        y = self.net(x).mean(dim=(2, 3))
        if not self.training:
            return y
        if self.in_training == "error":
            raise ValueError("no auxiliary head")
        return {"tuple": (y, y), "fewer": y[:, :2], "labels": y.argmax(dim=1)}[self.in_training]


class Extra(nn.Module):
    """Has a state beside its tensors."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.net, self.value = plain(), value

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def get_extra_state(self) -> object:
        return self.value

    def set_extra_state(self, state: object) -> None:
        self.value = state


class NotCopied(Extra):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        raise RuntimeError("only leaves are copied")


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d())


BAD = {
    "a tuple in training mode": (Changing("tuple"), "gave a tuple in training mode"),
    "labels in training mode": (Changing("labels"), r"gave torch.int64 \[2\] in training mode"),
    "other features in training mode": (Changing("fewer"), "6 features in evaluation mode and 2 in training mode"),
    "an error in training mode": (Changing("error"), r"fails in training mode on 2 images .*no auxiliary head"),
    "half": (plain().half(), r"must be float32, and 0.weight is float16: give model.float\(\)"),
    "double": (plain().double(), "must be float32, and 0.weight is float64"),
    "bf16": (plain().bfloat16(), "must be float32, and 0.weight is bfloat16"),
    "lazy": (lazy(), r"lazy layers.*\(0.weight"),
    "a stem for grey images": (
        nn.Conv2d(1, 6, 3),
        "first convolution takes 1 channel, but all images are RGB",
    ),
    "a stem for four channels": (nn.Conv2d(4, 6, 3), "takes 4 channels"),
    "frozen": (plain().requires_grad_(False), "no parameter of your module takes a gradient"),
    "without parameters": (nn.AvgPool2d(2), "no parameter of your module takes a gradient"),
    "a dict as extra state": (Extra({"scale": 2}), r"'_extra_state' \(of get_extra_state\) is a dict"),
    "no copy": (NotCopied(torch.ones(1)), r"cannot be copied by copy.deepcopy \(only leaves"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_module_that_cannot_be_trained_is_refused_with_what_to_do(case):
    module, said = BAD[case]
    with pytest.raises(RecipeError, match=said):
        build(CUSTOM, size=16, model=module)


def test_a_module_that_is_only_evaluated_may_be_frozen_and_change_in_training_mode():
    module = Changing("tuple").requires_grad_(False)
    assert build_headless(CUSTOM, size=16, model=module).num_features == 6


def test_checking_a_module_in_both_modes_changes_neither_it_nor_the_random_numbers():
    module = nn.Sequential(*plain(), nn.Dropout(0.5)).train()
    module[1].eval()  # a frozen BN
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(1)
    expected = nn.Linear(6, 4).weight  # the head is drawn as if nobody had tried
    torch.manual_seed(1)
    encoder = build(CUSTOM, size=16, model=module)
    assert torch.equal(encoder.head.weight, expected)
    assert_same(module.state_dict(), before)
    assert (module.training, module[1].training) == (True, False)


@pytest.mark.parametrize("classes", [7, 1000])
def test_a_module_that_ends_in_a_classifier_gives_a_caution(classes):
    (caution,) = build(CUSTOM, size=32, model=resnet18(num_classes=classes)).cautions
    assert f"'fc' (512 to {classes})" in caution


def test_a_module_without_a_classifier_gives_no_caution():
    without = resnet18()
    without.fc = nn.Identity()
    assert build(CUSTOM, size=32, model=without).cautions == ()
    widened = nn.Sequential(*plain(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 32))
    assert build(CUSTOM, size=32, model=widened).cautions == ()


WRAPPERS = {
    "torch.compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "both": lambda module: torch.compile(nn.DataParallel(module)),
    "a part, by torch.compile": lambda module: nn.Sequential(module[0], torch.compile(module[1]), module[2]),
    "Module.compile": lambda module: (module.compile(backend="eager"), module)[1],
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_module_trains_and_resumes_as_the_plain_one(wrapper, pictures, tiny, tmp_path):
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    class HeardAndStopped(Heard, StopAt):
        pass

    wrap = WRAPPERS[wrapper]
    recipe = tiny.but(None, {"optim.epochs": 0.4})
    options = {"recipe": recipe, "device": "cpu", "workers": 0}
    whole = pretrain(pictures, tmp_path / "whole", model=plain(), **options)
    with pytest.raises(Stopped):
        pretrain(pictures, tmp_path / "run", model=wrap(plain()), reporter=HeardAndStopped(1), **options)
    if wrapper != "Module.compile":  # which changes no name
        assert any(text.startswith("caution: your module") and "wrapped in" in text for text in said)
    run = pretrain(pictures, tmp_path / "run", model=plain(), **options)  # not wrapped this time
    assert_same(final_state(run.path), final_state(whole.path))
    found = moco.load(run.path, model=plain()).encoder.backbone.state_dict()
    assert_same(found, moco.load(run.path, model=wrap(plain())).encoder.backbone.state_dict())
    assert found.keys() == plain().state_dict().keys()


def test_extra_state_that_is_a_tensor_is_trained_saved_and_loaded(pictures, tiny, tmp_path):
    value = torch.tensor([1.0, 2.0])
    run = pretrain(pictures, tmp_path / "run", recipe=tiny.but(None, {"optim.epochs": 0.4}), model=Extra(value))
    loaded = Extra(torch.zeros(2))
    moco.load(run.path, model=loaded)
    assert torch.equal(loaded.value, value)
