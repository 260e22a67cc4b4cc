"""The network of semantic segmentation: layers of appendix A.5, its loss, its output."""

from pathlib import Path

import pytest
import torch
from torch import nn

from moco.distributed import mean_over_ranks
from moco.encoders import build_headless
from moco.recipe import EncoderSpec, RecipeError
from moco.transfer.models.fcn import build_segmenter
from moco.transfer.models.norms import NaiveSyncBatchNorm
from tests.run_ranks import on_ranks
from tests.transfer.narrow_resnet import images, network


def test_the_layers_are_those_of_the_appendix():
    fcn = build_segmenter(network(), 21)
    convs = [layer for layer in fcn.head.modules() if isinstance(layer, nn.Conv2d)]
    assert [(tuple(conv.weight.shape[:2]), conv.kernel_size, conv.dilation, conv.padding) for conv in convs] == [
        ((256, 256), (3, 3), (6, 6), (6, 6)),
        ((256, 256), (3, 3), (6, 6), (6, 6)),
        ((21, 256), (1, 1), (1, 1), (0, 0)),
    ]
    kinds = [type(layer) for layer in fcn.head.modules() if not list(layer.children())]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.Conv2d]
    blocks = fcn.body.get_submodule("layer4").children()
    assert [(block.conv2.dilation, block.conv2.stride) for block in blocks] == [((2, 2), (1, 1))] * 3


@pytest.mark.parametrize(("height", "width"), [(65, 49), (64, 80)])
def test_the_stride_is_16_and_the_output_has_the_images_size(height: int, width: int):
    fcn = build_segmenter(network(), 5).eval()
    with torch.no_grad():
        found = fcn(images(height, width))
        maps = fcn.body(torch.zeros(2, 3, height, width))[-1]
    assert found.shape == (2, 5, height, width)
    assert maps.shape[2:] == (-(-height // 16), -(-width // 16))
    assert fcn.body.strides[-1] == 16


def test_the_loss_is_the_mean_over_known_pixels():
    torch.manual_seed(0)
    fcn = build_segmenter(network(), 3).eval()
    labels = torch.randint(0, 3, (2, 32, 48))
    labels[0, :20] = 255
    with torch.no_grad():
        logits = fcn(images(32, 48)).double().log_softmax(dim=1)
        loss = fcn.loss(images(32, 48), labels)["loss_seg"]
    known = labels != 255
    picked = logits.gather(1, labels.clamp(max=2)[:, None])[:, 0][known]
    assert loss.item() == pytest.approx(-picked.mean().item(), rel=1e-5)


def test_images_without_a_known_pixel_have_a_loss_of_zero_and_no_gradient():
    fcn = build_segmenter(network(), 3).train()
    loss = fcn.loss(images(32, 32), torch.full((2, 32, 32), 255))["loss_seg"]
    loss.backward()
    assert loss == 0
    assert not any(x.grad.any() for x in fcn.parameters())


@pytest.mark.parametrize(("height", "width"), [(65, 49), (64, 80), (40, 33)])
def test_logits_lie_where_the_pixels_are_that_they_come_from(height: int, width: int):
    """A map of every 16th pixel, enlarged, is the image again if that is linear in x and y."""
    fcn = build_segmenter(network(), 3).eval()

    class EverySixteenth(nn.Module):
        strides = (16,)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x[..., ::16, ::16]]

    fcn.body, fcn.head = EverySixteenth(), nn.Identity()
    fcn.mean.zero_()
    fcn.std.fill_(1)
    image = (torch.arange(height)[:, None] + 2 * torch.arange(width)).to(torch.uint8).expand(1, 3, -1, -1)
    inside = (..., slice(16 * ((height - 1) // 16) + 1), slice(16 * ((width - 1) // 16) + 1))
    found = fcn(image)
    assert found.shape == (1, 3, height, width)
    assert torch.allclose(found[inside], image[inside].float(), atol=1e-3)


def test_in_training_mode_it_returns_losses_and_otherwise_logits():
    fcn = build_segmenter(network(), 3).train()
    with pytest.raises(ValueError, match=r"expected a class for each pixel in training mode"):
        fcn(images(32, 32))
    assert list(fcn(images(32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8))) == ["loss_seg"]
    assert fcn.eval()(images(32, 48)).shape == (2, 3, 32, 48)


def test_two_ranks_with_unequal_numbers_of_known_pixels_have_the_loss_and_gradients_of_one_process(tmp_path: Path):
    pictures = images(64, 64)
    labels = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    labels[0, :60] = 255

    def step(mine: slice) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        fcn = build_segmenter(network(), 3, norm="sync", channels=8).double().train()
        loss = fcn.loss(pictures[mine], labels[mine])["loss_seg"]
        loss.backward()
        return {"loss": loss.detach()} | {name: x.grad for name, x in fcn.named_parameters()}

    def worker(rank: int) -> dict[str, torch.Tensor]:
        return {name: mean_over_ranks(x) for name, x in step(slice(rank, rank + 1)).items()}

    joined = step(slice(0, 2))
    for found in on_ranks(worker, 2, tmp_path):
        for name, expected in joined.items():
            assert (found[name] - expected).norm() <= 0.01 * expected.norm() + 1e-5, name
        assert found["loss"].item() == pytest.approx(joined["loss"].item(), rel=1e-5)


def test_every_parameter_is_trained_and_each_image_predicted_at_its_own_size():
    fcn = build_segmenter(network(), 4, norm="sync").train()
    assert {type(layer) for layer in fcn.modules() if isinstance(layer, nn.BatchNorm2d)} == {NaiveSyncBatchNorm}
    fcn.loss(images(48, 48), torch.zeros(2, 48, 48, dtype=torch.uint8))["loss_seg"].backward()
    assert [name for name, x in fcn.named_parameters() if x.grad is None] == []
    pictures = [images(40, 50)[0], images(33, 21)[0]]
    found = fcn.eval().predict(pictures)
    assert [tuple(each.shape) for each in found] == [(40, 50), (33, 21)]
    assert torch.equal(found[1], fcn(pictures[1][None])[0].argmax(dim=0).to(torch.uint8))


@pytest.mark.parametrize(("name", "stride"), [("efficientnet_lite0", 16), ("mobilenetv3_small_050", 32)])
def test_a_network_of_timm_is_dilated_where_timm_can(name: str, stride: int):
    import timm

    theirs = timm.create_model(name, num_classes=0)
    fcn = build_segmenter(theirs, 4, norm="frozen", channels=8).eval()
    assert fcn.body.strides == [stride]
    state = fcn.body.network.state_dict()
    assert all(torch.equal(x, state[key]) for key, x in theirs.state_dict().items() if key in state)
    with torch.no_grad():
        assert fcn(images(64, 64)).shape == (2, 4, 64, 64)


def test_networks_and_classes_that_a_segmenter_cannot_have_are_refused():
    with pytest.raises(RecipeError, match="bottleneck blocks"):
        build_segmenter(network("resnet18"), 4)
    with pytest.raises(RecipeError, match="got a Linear"):
        build_segmenter(nn.Linear(2, 2), 4)
    with pytest.raises(RecipeError, match="1 to 255 classes"):
        build_segmenter(network(), 256)


def test_a_basic_block_network_of_stride_16_needs_no_dilation():
    network = build_headless(EncoderSpec(name="resnet10", stem="3x3/2", width=0.25)).backbone
    model = build_segmenter(network, 3).eval()
    assert model.body.strides[-1] == 16
    assert model(torch.zeros(1, 3, 50, 70, dtype=torch.uint8)).shape == (1, 3, 50, 70)
