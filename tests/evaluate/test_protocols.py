"""The papers' linear protocols against torch's own SGD and the published numbers; the guard, with faults planted."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import DataError, Folder, find_images
from moco.encoders import Encoder
from moco.evaluate import linear_sgd
from moco.evaluate.baselines import Pixels
from moco.evaluate.linear_sgd import PROTOCOLS, RATES, VIEW, Classifiers, EncoderChanged, frozen, probe_sgd
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError
from tests.evaluate.samples import CPU, DATA


@pytest.fixture
def images(labelled: Path) -> tuple[Folder, Folder]:
    return find_images(labelled / "train"), find_images(labelled / "test")


def tensors(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict(keep_vars=False).items()}


class AlwaysTraining(nn.BatchNorm2d):
    """A planted fault: it goes on in train mode whatever it is told."""

    def train(self, mode: bool = True) -> "AlwaysTraining":
        return super().train(True)


def views_of(images: Folder, *, epochs: int) -> ViewLoader:
    """Mini-batches of 16 as the protocols see them."""
    return ViewLoader(
        images, DATA.model_copy(update={"views": (VIEW,)}), batch_size=16, seed=0,
        steps=range(epochs * (len(images) // 16)), workers=0, device=CPU, quarantine=Quarantine(None, None, 1),
    )  # fmt: skip


def trained(images: Folder, rates: tuple[float, ...], *, epochs: int) -> Classifiers:
    """Classifiers of raw pixels, by v1's protocol."""
    heads = Classifiers(len(rates), Pixels(DATA).num_features, 4, seed=0)
    loader, rules = views_of(images, epochs=epochs), PROTOCOLS["v1"]
    linear_sgd._train(heads, Pixels(DATA), loader, rules, rates, epochs=epochs, progress=Progress())
    return heads


def test_the_classifier_is_what_torchs_linear_layer_sgd_and_schedule_make(images: tuple[Folder, Folder]):
    pixels, train = Pixels(DATA), images[0]
    linear = nn.Linear(pixels.num_features, 4)
    with torch.no_grad():
        linear.weight.copy_(Classifiers(1, pixels.num_features, 4, seed=0).weight[0])
        linear.bias.zero_()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.6 * 16 / 256, momentum=0.9, weight_decay=0)
    # 10 epochs instead of 100: the milestones at 60 and 80 are at 6 and 8
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 8], gamma=0.1)
    for step, (views, ids) in enumerate(views_of(train, epochs=10)):
        optimizer.zero_grad()
        F.cross_entropy(linear(pixels.features(views[0])), torch.from_numpy(train.labels)[ids]).backward()
        optimizer.step()
        if (step + 1) % (len(train) // 16) == 0:
            scheduler.step()
    heads = trained(train, (0.6,), epochs=10)
    torch.testing.assert_close(heads.weight[0], linear.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads.bias[0, 0], linear.bias, atol=1e-5, rtol=1e-4)


def test_a_classifier_of_a_sweep_equals_one_trained_with_its_rate_alone(images: tuple[Folder, Folder]):
    together, alone = trained(images[0], (0.1, 0.7, 3.0), epochs=3), trained(images[0], (0.7,), epochs=3)
    torch.testing.assert_close(together.weight[1], alone.weight[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together.weight[0], alone.weight[0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "epoch", "lr"),
    [
        ("v1", 0, 30.0), ("v1", 59, 30.0), ("v1", 60, 3.0), ("v1", 79, 3.0), ("v1", 80, 0.3), ("v1", 99, 0.3),
        ("v3-resnet", 0, 0.4), ("v3-resnet", 45, 0.2), ("v3-vit", 0, 12.0), ("v3-vit", 45, 6.0),
    ],
)  # fmt: skip
def test_the_learning_rates_are_the_published_ones(name: str, epoch: int, lr: float):
    rules = PROTOCOLS[name]
    assert rules.lr * rules.batch_size / 256 * rules.shape(epoch, rules.epochs) == pytest.approx(lr)


def test_the_protocols_have_the_published_lengths_and_batches():
    assert {name: (one.epochs, one.batch_size) for name, one in PROTOCOLS.items()} == {
        "v1": (100, 256), "v3-resnet": (90, 1024), "v3-vit": (90, 1024),
    }  # fmt: skip


def test_the_classifiers_begin_at_small_weights_and_no_bias():
    heads = Classifiers(3, 2000, 10, seed=0)
    assert heads.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not heads.bias.any()
    assert torch.equal(heads.weight[0], heads.weight[2])


def test_training_views_are_cropped_and_mirrored_and_keep_their_colours():
    assert (VIEW.crop_area, VIEW.crop_ratio, VIEW.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (VIEW.jitter.p, VIEW.grey, VIEW.blur, VIEW.solarize) == (0, 0, 0, 0)


def test_classes_of_different_colour_are_told_apart(encoder: Encoder, images: tuple[Folder, Folder]):
    probe = probe_sgd(encoder, *images, DATA, lr="sweep", epochs=20, batch_size=16, device=CPU)
    assert probe.accuracy > 75  # chance is 25


def test_a_sweep_takes_the_rate_that_is_best_on_held_out_training_images(
    encoder: Encoder, images: tuple[Folder, Folder], monkeypatch: pytest.MonkeyPatch
):
    train, test = images
    seen = []
    original = linear_sgd.hold_out
    monkeypatch.setattr(
        linear_sgd, "hold_out", lambda labels, **rest: seen.append(len(labels)) or original(labels, **rest)
    )
    probe = probe_sgd(encoder, train, test, DATA, lr="sweep", epochs=3, batch_size=16, device=CPU)
    assert seen == [len(train)]
    assert tuple(probe.tried) == RATES
    assert probe.tried[probe.setting] == max(probe.tried.values())


def test_the_encoder_does_not_change(encoder: Encoder, images: tuple[Folder, Folder]):
    encoder.train()
    next(encoder.parameters()).requires_grad_(False)
    before, modes = tensors(encoder), [part.training for part in encoder.modules()]
    asked = [parameter.requires_grad for parameter in encoder.parameters()]
    probe_sgd(encoder, *images, DATA, epochs=2, batch_size=16, device=CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert [part.training for part in encoder.modules()] == modes
    assert [parameter.requires_grad for parameter in encoder.parameters()] == asked
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_an_encoder_in_train_mode_is_found_by_its_buffers(encoder: Encoder, images: tuple[Folder, Folder]):
    encoder.backbone.bn1 = AlwaysTraining(encoder.backbone.bn1.num_features)
    with pytest.raises(EncoderChanged, match=r"backbone\.bn1\.running_mean"):
        probe_sgd(encoder, *images, DATA, epochs=1, batch_size=16, device=CPU)


@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "layer4.0.bn2.num_batches_tracked"])
def test_any_tensor_that_changes_by_one_is_found(encoder: Encoder, name: str):
    with (
        pytest.raises(EncoderChanged, match=rf"1 tensor \(backbone.{name}\)"),
        frozen(encoder, Classifiers(1, 4, 2, seed=0)),
    ):
        encoder.backbone.state_dict()[name].view(-1)[0].add_(1)


def test_a_buffer_that_is_not_saved_is_compared_too(encoder: Encoder):
    encoder.register_buffer("passing", torch.zeros(1), persistent=False)
    with pytest.raises(EncoderChanged, match="passing"), frozen(encoder, Classifiers(1, 4, 2, seed=0)):
        encoder.get_buffer("passing").add_(1)


def test_a_third_tensor_that_would_train_is_refused(encoder: Encoder):
    heads = Classifiers(1, 4, 2, seed=0)
    heads.more = nn.Parameter(torch.zeros(1))
    with pytest.raises(EncoderChanged, match="got 3 trained tensors"), frozen(encoder, heads):
        pass


def test_an_error_inside_is_not_hidden_by_the_guard(encoder: Encoder):
    with pytest.raises(KeyError), frozen(encoder, Classifiers(1, 4, 2, seed=0)):
        raise KeyError
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_a_rate_at_which_it_diverges_is_an_error(images: tuple[Folder, Folder]):
    with pytest.raises(RecipeError, match="diverged at lr 1e\\+38"):
        probe_sgd(Pixels(DATA), *images, DATA, lr=1e38, epochs=2, batch_size=16, device=CPU)


def test_a_rate_at_which_it_diverges_is_never_chosen(
    encoder: Encoder, images: tuple[Folder, Folder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(linear_sgd, "RATES", (1e38, 1.0))
    probe = probe_sgd(encoder, *images, DATA, lr="sweep", epochs=2, batch_size=16, device=CPU)
    assert probe.setting == 1.0
    assert probe.tried[1e38] < 0


def test_a_batch_larger_than_the_images_is_all_of_them(encoder: Encoder, images: tuple[Folder, Folder]):
    assert probe_sgd(encoder, *images, DATA, protocol="v3-vit", lr=1.0, epochs=2, device=CPU).setting == 1.0


def test_bad_training_images_are_skipped_and_listed_by_name(encoder: Encoder, images: tuple[Folder, Folder]):
    Path(images[0].path(5)).write_bytes(b"no")
    quarantine = Quarantine(None, None, 84)
    probe_sgd(encoder, *images, DATA, epochs=1, batch_size=16, device=CPU, quarantine=quarantine)
    assert list(quarantine.bad) == [images[0].names[5]]


@pytest.mark.parametrize("lr", [0.0, -1.0])
def test_a_rate_that_is_not_positive_is_an_error(encoder: Encoder, images: tuple[Folder, Folder], lr: float):
    with pytest.raises(RecipeError, match="lr must be above 0, or 'sweep'"):
        probe_sgd(encoder, *images, DATA, lr=lr, device=CPU)


def test_an_unknown_protocol_is_an_error_that_names_the_nearest(encoder: Encoder, images: tuple[Folder, Folder]):
    with pytest.raises(RecipeError, match="did you mean v3-vit"):
        probe_sgd(encoder, *images, DATA, protocol="v3-vti", device=CPU)


def test_images_without_labels_are_an_error(encoder: Encoder, pictures: Path):
    with pytest.raises(DataError, match="class folders"):
        probe_sgd(encoder, find_images(pictures), find_images(pictures), DATA, device=CPU)
