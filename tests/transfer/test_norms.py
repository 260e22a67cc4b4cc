"""BatchNorm of detectors: synchronized over ranks, frozen, with exact statistics, over no RoI at all."""

from pathlib import Path

import pytest
import torch
from run_ranks import on_ranks
from torch import nn

from moco.distributed import mean_over_ranks
from moco.encoders.resnet import NETS, ResNet
from moco.recipe import RecipeError
from moco.transfer.models.build import build_detector
from moco.transfer.models.norms import (
    NaiveSyncBatchNorm,
    RoIBatchNorm,
    freeze,
    parameter_groups,
    precise_bn,
    synchronize,
)
from moco.transfer.models.settings import ProposalCounts, paper_settings
from tests.transfer.recorded import in_order, recorded

CHANNELS = 5


def data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(6, CHANNELS, 4, 3, generator=rng) * 3 + 1, torch.randn(6, CHANNELS, 4, 3, generator=rng)


def plain() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(CHANNELS)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, CHANNELS))
        norm.bias.copy_(torch.linspace(-1, 1, CHANNELS))
    return norm


def step(norm: nn.BatchNorm2d, x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * weights).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return found | {"mean": norm.running_mean, "var": norm.running_var}


def test_two_ranks_equal_one_process_on_the_joined_batch(tmp_path: Path):
    x, weights = data()
    joined = step(plain(), x, weights)

    def worker(rank: int) -> dict[str, torch.Tensor]:
        mine = slice(3 * rank, 3 * rank + 3)
        return step(synchronize(nn.Sequential(plain()))[0], x[mine], weights[mine])

    ranks = on_ranks(worker, 2, tmp_path)
    for kind in ("y", "x"):
        assert torch.allclose(torch.cat([found[kind] for found in ranks]), joined[kind], atol=1e-5)
    for kind in ("weight", "bias"):  # each rank has its share of the sum
        assert torch.allclose(sum(found[kind] for found in ranks), joined[kind], atol=1e-4)
    for found in ranks:
        assert torch.allclose(found["mean"], joined["mean"], atol=1e-6)
        biased = 0.9 + 0.1 * x.var(dim=(0, 2, 3), unbiased=False)  # Detectron2's; torch's has n / (n - 1)
        assert torch.allclose(found["var"], biased, atol=1e-5)


def test_ranks_count_the_same_however_much_they_have_and_not_without_any(tmp_path: Path):
    x, weights = data()
    parts = [slice(0, 1), slice(1, 6), slice(6, 6)]

    def worker(rank: int) -> dict[str, torch.Tensor]:
        return step(synchronize(nn.Sequential(plain()))[0], x[parts[rank]], weights[parts[rank]])

    ranks = on_ranks(worker, 3, tmp_path)
    means = torch.stack([x[part].mean(dim=(0, 2, 3)) for part in parts[:2]]).mean(dim=0)
    assert all(torch.allclose(found["mean"], 0.1 * means, atol=1e-6) for found in ranks)
    assert ranks[2]["y"].shape == (0, CHANNELS, 4, 3)


def test_two_ranks_make_the_same_step_of_a_detector_as_one_process(tmp_path: Path):
    file = recorded("c4_box")
    image, target = file.images()[0], file.targets()[0]
    boxes = target["boxes"][:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor([128.0, 0, 128, 0])
    images, targets = [image, image.flip(2)], [target, target | {"boxes": boxes}]

    def gradients(detector: nn.Module, mine: slice) -> dict[str, torch.Tensor]:
        with in_order():
            sum(detector.train()(images[mine], targets[mine]).values()).backward()
        return {name: x.grad for name, x in detector.named_parameters()}

    def worker(rank: int) -> dict[str, torch.Tensor]:
        found = gradients(synchronize(file.detector()), slice(rank, rank + 1))
        return {name: mean_over_ranks(grad) for name, grad in found.items()}

    joined = gradients(file.detector(), slice(0, 2))
    for found in on_ranks(worker, 2, tmp_path):
        for name, grad in joined.items():
            assert (found[name] - grad).norm() <= 0.02 * grad.norm() + 1e-6, name


def test_one_rank_has_torchs_batchnorm():
    x, weights = data()
    ours, theirs = step(synchronize(nn.Sequential(plain()))[0], x, weights), step(plain(), x, weights)
    assert all(torch.equal(ours[kind], theirs[kind]) for kind in theirs)


def test_a_synchronized_detector_has_no_other_batchnorm_and_the_same_tensors():
    detector = build_detector(ResNet(NETS["resnet50"], width=0.125), "detect", "c4", 2, norm="sync")
    norms = [type(layer) for layer in detector.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert set(norms) == {NaiveSyncBatchNorm}
    assert len(norms) == 53 + 1
    plain = build_detector(ResNet(NETS["resnet50"], width=0.125), "detect", "c4", 2)
    assert plain.state_dict().keys() == detector.state_dict().keys()


def test_timms_batchnorm_with_activation_is_synchronized_and_keeps_its_activation(tmp_path: Path):
    from timm.layers import BatchNormAct2d

    x, weights = data()
    joined = step(BatchNormAct2d(CHANNELS), x, weights)

    def worker(rank: int) -> dict[str, torch.Tensor]:
        mine = slice(3 * rank, 3 * rank + 3)
        return step(synchronize(nn.Sequential(BatchNormAct2d(CHANNELS)))[0], x[mine], weights[mine])

    ranks = on_ranks(worker, 2, tmp_path)
    for kind in ("y", "x"):
        assert torch.allclose(torch.cat([found[kind] for found in ranks]), joined[kind], atol=1e-5)


def test_a_layer_that_is_more_than_batchnorm_is_not_synchronized():
    class Special(nn.BatchNorm2d):
        pass

    with pytest.raises(RecipeError, match="0 is a Special: take --bn tuned or frozen"):
        synchronize(nn.Sequential(Special(4)))


def test_frozen_batchnorm_is_what_it_was_in_evaluation_whatever_the_mode():
    torch.manual_seed(0)
    network = ResNet(NETS["resnet10"], width=0.125)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.rand(2, 3, 32, 32)
    wanted = network.eval()(x)
    frozen = freeze(network).train()
    before = {name: value.clone() for name, value in frozen.state_dict().items() if "bn" in name}
    assert torch.allclose(frozen(x), wanted, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items() if "bn" in name)
    assert not any("bn" in name or "downsample.1" in name for name, _ in frozen.named_parameters())


def test_with_a_frozen_encoder_new_layers_have_no_batchnorm_unless_the_settings_say_so():
    """Detectron2's configurations with FrozenBN have FPN.NORM ""."""
    settings = paper_settings("detect", "fpn", 2)
    for given, norms in ((None, 0), (settings, 8)):
        network = ResNet(NETS["resnet10"], width=0.125)
        detector = build_detector(network, "detect", "fpn", 2, norm="frozen", settings=given)
        trained = [name for name, layer in detector.named_modules() if isinstance(layer, nn.BatchNorm2d)]
        assert len(trained) == norms
        assert all(name.startswith("backbone.fpn.") for name in trained)
    c4 = build_detector(ResNet(NETS["resnet50"], width=0.125), "detect", "c4", 2, norm="frozen")
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in c4.modules())


def test_precise_bn_takes_the_statistics_of_the_whole_data_and_leaves_the_rest():
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 3, 8, 8, generator=rng) * 4 + n for n in (2, 5, 1)]
    torch.manual_seed(0)
    norm, conv = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)
    model = nn.Sequential(norm, conv, nn.BatchNorm2d(2)).train()
    before = {name: x.clone() for name, x in model.state_dict().items() if "running" not in name}
    precise_bn(model, batches, model)
    values = torch.cat(batches).transpose(0, 1).flatten(1)
    assert torch.allclose(norm.running_mean, values.mean(dim=1), atol=1e-5)
    assert torch.allclose(norm.running_var, values.var(dim=1), rtol=1e-5)
    second = torch.cat([conv(nn.BatchNorm2d(3)(x)) for x in batches]).transpose(0, 1).flatten(1)  # as training sees it
    assert torch.allclose(model[2].running_mean, second.mean(dim=1), atol=1e-5)
    assert torch.allclose(model[2].running_var, second.var(dim=1), rtol=1e-4)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if "running" not in name)


def test_precise_bn_of_two_ranks_is_that_of_all_their_data(tmp_path: Path):
    x, _ = data()

    def worker(rank: int) -> dict[str, torch.Tensor]:
        norm = plain().train()
        precise_bn(norm, [x[3 * rank : 3 * rank + 3]], norm)
        return norm.state_dict()

    for found in on_ranks(worker, 2, tmp_path):
        assert torch.allclose(found["running_mean"], x.mean(dim=(0, 2, 3)), atol=1e-6)
        assert torch.allclose(found["running_var"], x.var(dim=(0, 2, 3)), rtol=1e-5)


def test_precise_bn_leaves_frozen_layers_and_is_undone_by_an_error():
    x, _ = data()
    norm = plain().train()
    frozen = plain().eval()

    def fail(batch: torch.Tensor) -> None:
        norm(frozen(batch))
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        precise_bn(nn.ModuleList([norm, frozen]), [x], fail)
    assert norm.running_mean.tolist() == [0] * CHANNELS
    assert norm.num_batches_tracked == 0
    assert not norm._forward_pre_hooks


def test_no_roi_at_all_is_no_error_and_moves_nothing():
    norm = RoIBatchNorm(CHANNELS)
    y = norm(torch.zeros(0, CHANNELS, 2, 2))
    y.sum().backward()
    assert y.shape == (0, CHANNELS, 2, 2)
    assert norm.running_mean.tolist() == [0] * CHANNELS
    assert norm.weight.grad.tolist() == [0] * CHANNELS


def test_a_detector_on_a_network_of_timm_finds_boxes(monkeypatch: pytest.MonkeyPatch):
    import timm

    settings = paper_settings("detect", "fpn", 2).but(
        counts=ProposalCounts((50, 50), (20, 20)), fpn_channels=16, fc_channels=16
    )
    network = timm.create_model("mobilenetv3_small_050", num_classes=0)
    detector = build_detector(network, "detect", "fpn", 2, norm="frozen", settings=settings).train()
    assert detector.backbone.strides == (4, 8, 16, 32, 64)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    losses = detector([image], [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([0])}])
    sum(losses.values()).backward()
    assert network.conv_stem.weight.grad.abs().sum() > 0
    assert set(detector.eval()([image])[0]) == {"boxes", "scores", "labels"}


def test_a_network_without_feature_maps_of_four_strides_is_refused():
    import timm

    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    with pytest.raises(RecipeError, match="has none of 4, 8, 32"):
        build_detector(network, "detect", "fpn", 2)
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    with pytest.raises(RecipeError, match="takes images of one size only"):
        build_detector(network, "detect", "fpn", 2)


def test_weights_of_norm_layers_do_not_decay():
    detector = build_detector(ResNet(NETS["resnet10"], width=0.125), "detect", "fpn", 2)
    decaying, rest = parameter_groups(detector, 1e-4)
    assert (decaying["weight_decay"], rest["weight_decay"]) == (1e-4, 0)
    names = {id(x): name for name, x in detector.named_parameters()}
    of_norms = {names[id(x)] for x in rest["params"]}
    norms = [name for name, layer in detector.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert of_norms == {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")}
    assert {names[id(x)] for x in decaying["params"]} == set(names.values()) - of_norms
    frozen = build_detector(ResNet(NETS["resnet10"], width=0.125), "detect", "fpn", 2, norm="frozen")
    assert parameter_groups(frozen, 1e-4)[1]["params"] == []
