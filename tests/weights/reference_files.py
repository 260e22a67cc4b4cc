"""Networks as the reference scripts make them, out of torchvision's and timm's, and the files they save.

From what is known of the format (names, layers, order of parameters); nothing here is made by the package under test.
"""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TheirResNet

DIM, HIDDEN, K = 16, 24, 32


class Narrow(TheirResNet):
    """torchvision's ResNet-18, an eighth as wide: small files."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.fc = nn.Linear(64, num_classes)

    def __setattr__(self, name: str, value: Any) -> None:
        first = name == "inplanes" and not hasattr(self, "inplanes")
        super().__setattr__(name, value // 8 if first else value)

    def _make_layer(self, block: Any, planes: int, *others: Any, **named: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *others, **named)


def resnet(*, head: str, narrow: bool = True) -> nn.Module:
    """torchvision's ResNet-18, with a head for fc: "v1" a linear layer, "v2" an MLP, "v3" the two-layer projector."""
    network = Narrow(DIM) if narrow else models.resnet18(num_classes=DIM)
    features = network.fc.in_features
    if head == "v2":
        network.fc = nn.Sequential(nn.Linear(features, features), nn.ReLU(), network.fc)
    if head == "v3":
        network.fc = mlp(2, features, last_bn=True)
    return network


def vit(arch: str = "vit_small_patch16_224", *, heads: int = 12, hidden: int = HIDDEN, **arguments: Any) -> nn.Module:
    """timm's, with 12 heads, and the three-layer projector for a head."""
    network = timm.create_model(arch, num_classes=0, num_heads=heads, **arguments)
    network.pos_embed = nn.Parameter(sincos(network), requires_grad=False)
    network.head = mlp(3, network.embed_dim, hidden=hidden, last_bn=True)
    return network


def micro_vit() -> nn.Module:
    return vit("vit_tiny_patch16_224", heads=4, img_size=32, patch_size=4, embed_dim=64, depth=3)


def sincos(network: nn.Module) -> Tensor:
    """Fixed positions: for each patch sin and cos of its row, then of its column, D / 4 numbers each."""
    width, grid = network.embed_dim, network.patch_embed.grid_size[0]
    rows = []
    for row in range(grid):
        for column in range(grid):
            parts = []
            for place in (row, column):
                angles = [place / 10000 ** (i / (width // 4)) for i in range(width // 4)]
                parts += [
                    torch.tensor(angles, dtype=torch.float64).sin(),
                    torch.tensor(angles, dtype=torch.float64).cos(),
                ]
            rows.append(torch.cat(parts))
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), torch.stack(rows)]).float()[None]


def mlp(layers: int, inputs: int, *, hidden: int = HIDDEN, last_bn: bool) -> nn.Sequential:
    """Linear layers without bias, BN and ReLU between them, at the end BN without weights or nothing."""
    modules: list[nn.Module] = []
    for i in range(layers):
        last = i == layers - 1
        modules.append(nn.Linear(inputs if i == 0 else hidden, DIM if last else hidden, bias=False))
        if not last:
            modules += [nn.BatchNorm1d(hidden), nn.ReLU()]
        elif last_bn:
            modules.append(nn.BatchNorm1d(DIM, affine=False))
    return nn.Sequential(*modules)


class V1(nn.Module):
    """v1 and v2: encoder_q, encoder_k, queue C x K, queue_ptr."""

    def __init__(self, encoder_q: nn.Module, encoder_k: nn.Module, *, dim: int = DIM, k: int = K) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = encoder_q, encoder_k
        self.register_buffer("queue", nn.functional.normalize(torch.randn(dim, k), dim=0))
        self.register_buffer("queue_ptr", torch.tensor([8]))


class V3(nn.Module):
    """v3: base_encoder, momentum_encoder, predictor."""

    def __init__(self, base_encoder: nn.Module, momentum_encoder: nn.Module, *, last_bn: bool) -> None:
        super().__init__()
        self.base_encoder, self.momentum_encoder = base_encoder, momentum_encoder
        self.predictor = mlp(2, DIM, last_bn=last_bn)


def trained(model: nn.Module) -> nn.Module:
    """With BN statistics that have moved and are different everywhere."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 1, 2)
            module.num_batches_tracked.fill_(7)
    return model.eval()


def saved(
    model: nn.Module, *, arch: str, epoch: int = 200, optimizer: bool = True, trained: str = ""
) -> dict[str, Any]:
    """The file of a reference script: the model in DDP, beside it epoch, arch and the optimizer's state.

    Args:
        trained: what the names of the optimizer's parameters begin with; main_lincls.py gives it the classifier alone.
    """
    content: dict[str, Any] = {"epoch": epoch, "arch": arch}
    content["state_dict"] = {f"module.{key}": value for key, value in model.state_dict().items()}
    if optimizer:
        parameters = [one for name, one in model.named_parameters() if name.startswith(trained)]
        first = parameters[0]
        sgd = torch.optim.SGD(parameters, 0.03, momentum=0.9, weight_decay=1e-4)
        first.grad = torch.ones_like(first)
        sgd.step()
        content["state_dict"] = {f"module.{key}": value for key, value in model.state_dict().items()}
        content["optimizer"] = sgd.state_dict()
    return content


def stripped(content: dict[str, Any], *, keep: str) -> dict[str, Any]:
    """As files are released: without optimizer, and only what begins with `keep`."""
    state = {key: value for key, value in content["state_dict"].items() if key.startswith(f"module.{keep}")}
    return {"epoch": content["epoch"], "arch": content["arch"], "state_dict": state}


def v1() -> dict[str, Any]:
    return saved(trained(V1(resnet(head="v1"), resnet(head="v1"))), arch="resnet18")


def v2() -> dict[str, Any]:
    return saved(trained(V1(resnet(head="v2"), resnet(head="v2"))), arch="resnet18")


def v3_resnet() -> dict[str, Any]:
    content = saved(trained(V3(resnet(head="v3"), resnet(head="v3"), last_bn=False)), arch="resnet18", epoch=100)
    return content | {"scaler": torch.amp.GradScaler("cpu").state_dict()}


def v3_vit() -> dict[str, Any]:
    return saved(trained(V3(micro_vit(), micro_vit(), last_bn=True)), arch="vit_micro", epoch=300)


def linear_probe() -> dict[str, Any]:
    return saved(trained(Narrow(10)), arch="resnet18", trained="fc.") | {"best_acc1": torch.tensor(67.5)}


FILES = {"v1": v1, "v2": v2, "v3 resnet": v3_resnet, "v3 vit": v3_vit, "linear probe": linear_probe}
