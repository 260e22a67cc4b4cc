"""`moco export --to fair`: what the reference scripts load, key by key, with all that our runs know."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from sample_pictures import make_pictures
from torch import nn
from torchvision import models

from moco import recipes
from moco.encoders import build
from moco.encoders.heads import predictor
from moco.recipe import EncoderSpec
from moco.train import checkpoint
from moco.train.pretrain import pretrain
from moco.weights.encoder_folder import load_encoder
from moco.weights.export import export
from moco.weights.load import read_weights
from moco.weights.loaded_weights import LoadedWeights
from moco.weights.official.layout import compose_official
from tests.weights import reference_files

NARROW = {
    "encoder.name": "resnet18",
    "encoder.width": 0.125,
    "encoder.stem": "7x7/2+pool",
    "encoder.dim": reference_files.DIM,
}
SMALL = {"data.size": 32, "data.eval_resize": 32, "optim.batch_size": 8, "optim.epochs": 2, "method.bn_groups": 2}
V3 = {
    "method.dictionary": "batch", "method.size": None, "method.symmetric": True, "method.bn": "plain",
    "encoder.hidden": reference_files.HIDDEN, "encoder.dim": reference_files.DIM,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "v1": NARROW | {"encoder.head": "linear", "method.size": reference_files.K},
    "v2": NARROW | {"encoder.head": "mlp", "method.size": reference_files.K},
    "v3 resnet": V3 | NARROW | {"encoder.head": "projector2", "method.predictor": "mlp", "optim.optimizer": "lars"},
    "v3 vit": V3 | {
        "encoder.name": "vit_micro", "encoder.stem": "7x7/2+pool", "encoder.width": 1.0, "encoder.head": "projector3",
        "encoder.freeze_patch": True, "encoder.patch": 4, "method.predictor": "mlp_bn", "optim.optimizer": "adamw",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a run on 40 pictures, 10 steps, made once for each name of RUNS."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("fair")
            recipe = recipes.named("demo").but("small", SMALL | RUNS[name])
            made[name] = pretrain(make_pictures(folder / "pictures", 40), folder / "run", recipe=recipe).path
        return made[name]

    return make


def reference(name: str) -> nn.Module:
    """Their model for one of RUNS, with other weights."""
    if name == "v3 vit":
        return reference_files.V3(reference_files.micro_vit(), reference_files.micro_vit(), last_bn=True)
    if name == "v3 resnet":
        return reference_files.V3(reference_files.resnet(head="v3"), reference_files.resnet(head="v3"), last_bn=False)
    return reference_files.V1(reference_files.resnet(head=name), reference_files.resnet(head=name))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory: pytest.TempPathFactory):
    """The checkpoint made of a run, or of another folder, and what is said of it; made once."""
    made: dict[Path, tuple[dict[str, Any], str]] = {}

    def make(name: str, place: str = ".") -> tuple[dict[str, Any], str]:
        folder = run(name) / place
        if folder not in made:
            out = tmp_path_factory.mktemp("out") / "checkpoint_0002.pth.tar"
            said = export(folder, to="fair", out=out)
            made[folder] = torch.load(out, weights_only=True), said
        return made[folder]

    return make


def ours(folder: Path) -> dict[str, Any]:
    newest = checkpoint.newest_intact(folder / "checkpoints")
    assert newest is not None
    return checkpoint.read_checkpoint(newest)["state"]


@pytest.mark.parametrize("name", list(RUNS))
def test_the_authors_model_loads_a_run_strictly_and_computes_the_same(exported, run, name: str) -> None:
    content, _ = exported(name)
    model = reference(name)
    model.load_state_dict({key.removeprefix("module."): value for key, value in content["state_dict"].items()})
    found = read_weights(run(name), whole=True)
    assert found.spec is not None
    x = torch.randn(2, 3, 32, 32)
    names = ("base_encoder", "momentum_encoder") if name.startswith("v3") else ("encoder_q", "encoder_k")
    for part, backbone, head in (
        (names[0], found.backbone, found.head),
        (
            names[1],
            *({k.removeprefix(p): v for k, v in found.f_k.items() if k.startswith(p)} for p in ("backbone.", "head.")),
        ),
    ):
        encoder = build(found.spec, size=32).eval()
        encoder.backbone.load_state_dict(backbone)
        encoder.head.load_state_dict(head)
        with torch.no_grad():
            torch.testing.assert_close(model.get_submodule(part).eval()(x), encoder(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_authors_queue_has_our_keys_in_its_columns(exported, run, name: str) -> None:
    state, queue = exported(name)[0]["state_dict"], ours(run(name))["model"]
    assert state["module.queue"].shape == (reference_files.DIM, reference_files.K)
    assert all(torch.equal(state["module.queue"][:, i], queue["dictionary.keys"][i]) for i in range(reference_files.K))
    assert state["module.queue_ptr"].tolist() == [queue["dictionary.oldest"].item()] == [80 % reference_files.K]


@pytest.mark.parametrize("name", list(RUNS))
def test_the_file_has_what_the_authors_scripts_resume_from(exported, name: str) -> None:
    content, said = exported(name)
    assert set(content) == {"epoch", "arch", "state_dict", "optimizer", "f_k_updated"} | (
        {"scaler"} if name.startswith("v3") else set()
    )
    assert content["epoch"] == 2
    assert content["arch"] == RUNS[name]["encoder.name"]
    assert "optimizer: its state" in said
    assert all(key.startswith("module.") for key in content["state_dict"])


@pytest.mark.parametrize(("name", "theirs_", "ours_"), [
    ("v1", ["momentum_buffer"], ["momentum_buffer"]),
    ("v2", ["momentum_buffer"], ["momentum_buffer"]),
    ("v3 resnet", ["mu"], ["momentum_buffer"]),
    ("v3 vit", ["exp_avg", "exp_avg_sq", "step"], ["exp_avg", "exp_avg_sq", "step"]),
])  # fmt: skip
def test_the_optimizers_state_is_at_the_same_parameters(exported, run, name: str, theirs_, ours_) -> None:
    content, state = exported(name)[0], ours(run(name))
    model = reference(name)
    for part, parameter in model.named_parameters():  # what their scripts train
        frozen = part.endswith("pos_embed") or "patch_embed" in part
        parameter.requires_grad_(part.startswith(("encoder_q", "base_encoder", "predictor")) and not frozen)
    places = {i: part for i, (part, parameter) in enumerate(model.named_parameters()) if parameter.requires_grad}
    optimizer = content["optimizer"]
    assert optimizer["param_groups"][0]["params"] == list(range(len(list(model.parameters()))))
    assert set(optimizer["state"]) == set(places)
    shapes = dict(model.named_parameters())
    for (place, values), mine in zip(
        sorted(optimizer["state"].items()), dict(sorted(state["optimizer"]["state"].items())).values(), strict=True
    ):
        assert [values[one].shape for one in theirs_ if one != "step"] == [shapes[places[place]].shape] * len(
            [one for one in theirs_ if one != "step"]
        )
        assert all(torch.equal(values[one], mine[other]) for one, other in zip(theirs_, ours_, strict=True))


def test_the_authors_sgd_continues_where_ours_stopped(exported) -> None:
    content = exported("v2")[0]
    model = reference("v2")
    model.load_state_dict({key.removeprefix("module."): value for key, value in content["state_dict"].items()})
    sgd = torch.optim.SGD(model.parameters(), 1.0, momentum=0.5)
    sgd.load_state_dict(content["optimizer"])
    weight = model.encoder_q.fc[2].weight
    before, velocity = weight.detach().clone(), sgd.state[weight]["momentum_buffer"].clone()
    group = sgd.param_groups[0]
    weight.grad = torch.ones_like(weight)
    sgd.step()
    expected = before - group["lr"] * (0.9 * velocity + 1 + 5e-4 * before)  # the demo's momentum and weight decay
    torch.testing.assert_close(weight.detach(), expected)


def test_the_authors_lars_finds_its_settings(exported) -> None:
    group = exported("v3 resnet")[0]["optimizer"]["param_groups"][0]
    assert {"lr", "weight_decay", "momentum", "trust_coefficient"} <= group.keys()


def test_an_encoder_without_checkpoints_is_exported_alone_and_the_report_says_so(exported) -> None:
    content, said = exported("v1", "encoder")
    assert {key.split(".")[1] for key in content["state_dict"]} == {"encoder_q"}
    assert not any(key.startswith("module.encoder_q.fc") for key in content["state_dict"])
    assert "optimizer" not in content
    for word in ("head: none", "f_k: none", "queue: none", "optimizer: none"):
        assert word in said


def test_a_vit_without_checkpoints_goes_out_by_the_names_of_v3(exported) -> None:
    content, said = exported("v3 vit", "encoder")
    assert {key.split(".")[1] for key in content["state_dict"]} == {"base_encoder"}
    assert "num_heads=4" in said  # of the network that loads it


def test_a_network_that_their_scripts_do_not_make_is_named(exported) -> None:
    assert "scripts cannot build this network (torchvision has no resnet18 with width 0.125" in exported("v1")[1]


def test_the_report_names_a_network_that_the_file_does_not_show(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "in.pth")
    report = export(tmp_path / "in.pth", to="fair", out=tmp_path / "out.pth", architecture="timm/test_convnext")
    assert "f_q: timm/test_convnext, " in report


def test_a_file_of_torchvision_becomes_a_stripped_checkpoint(tmp_path: Path) -> None:
    network = models.resnet18()
    torch.save(network.state_dict(), tmp_path / "in.pth")
    said = export(tmp_path / "in.pth", to="fair", out=tmp_path / "out.pth.tar")
    content = torch.load(tmp_path / "out.pth.tar", weights_only=True)
    state = {f"module.encoder_q.{k}": v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    assert content["state_dict"].keys() == state.keys()
    assert all(torch.equal(content["state_dict"][key], state[key]) for key in state)
    assert 'Their network is torchvision.models.get_model("resnet18")' in said


def test_exported_files_can_be_imported(exported, run, tmp_path: Path) -> None:
    torch.save(exported("v2")[0], tmp_path / "checkpoint_0002.pth.tar")
    encoder, config = load_encoder(tmp_path / "checkpoint_0002.pth.tar")
    assert (config.encoder.name, config.encoder.width, config.encoder.head) == ("resnet18", 0.125, "mlp")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), load_encoder(run("v2"))[0](x))


# The official lists, by torchvision's and timm's own names: what is known of the released format, on no real memory.


def layout(spec: EncoderSpec, *, size: int = 224, k: int | None = None, kind: Any = "none") -> dict[str, torch.Size]:
    with torch.device("meta"):
        encoder, key_encoder = build(spec, size=size), build(spec, size=size)
        queue = {} if k is None else {"keys": torch.empty(k, spec.dim), "oldest": torch.empty((), dtype=torch.long)}
        more = predictor(spec, kind)
    found = LoadedWeights(
        "", encoder.backbone.state_dict(), encoder.head.state_dict(), spec=spec, f_k=key_encoder.state_dict(),
        queue=queue, predictor={} if more is None else more.state_dict(),
    )  # fmt: skip
    return {key: value.shape for key, value in compose_official(found, v3=k is None).items()}


@pytest.mark.parametrize(("head", "count"), [("linear", 642), ("mlp", 646)])
def test_the_names_of_v1_and_v2_are_the_official_ones(head: str, count: int) -> None:
    with torch.device("meta"):
        network = models.resnet50(num_classes=128)
    if head == "mlp":
        network.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))
    expected = {
        f"module.{encoder}.{key}": value.shape
        for encoder in ("encoder_q", "encoder_k")
        for key, value in network.state_dict().items()
    }
    expected |= {"module.queue": torch.Size([128, 65536]), "module.queue_ptr": torch.Size([1])}
    assert len(expected) == count
    assert layout(EncoderSpec(name="resnet50", head=head, dim=128), k=65536) == expected


FIXED = ("running_mean", "running_var", "num_batches_tracked")  # of BN without weights
BN = ("weight", "bias", *FIXED)


def names(of: str, layers: dict[int, tuple[str, ...]]) -> set[str]:
    return {f"{of}.{i}.{name}" for i, tensors in layers.items() for name in tensors}


def test_the_names_of_v3_with_a_resnet_are_the_official_ones() -> None:
    with torch.device("meta"):
        backbone = {key for key in models.resnet50().state_dict() if not key.startswith("fc.")}
    encoder = backbone | names("fc", {0: ("weight",), 1: BN, 3: ("weight",), 4: FIXED})
    expected = {f"module.{one}.{key}" for one in ("base_encoder", "momentum_encoder") for key in encoder}
    expected |= names("module.predictor", {0: ("weight",), 1: BN, 3: ("weight",)})
    made = layout(EncoderSpec(name="resnet50", head="projector2", dim=256), kind="mlp")
    assert set(made) == expected
    assert made["module.base_encoder.fc.0.weight"] == (4096, 2048)
    assert made["module.base_encoder.fc.3.weight"] == (256, 4096)
    assert made["module.predictor.3.weight"] == (256, 4096)


@pytest.mark.parametrize("size", ["small", "base"])
def test_the_names_of_v3_with_a_vit_are_the_official_ones(size: str) -> None:
    with torch.device("meta"):
        backbone = set(timm.create_model(f"vit_{size}_patch16_224", num_classes=0).state_dict())
    encoder = backbone | names("head", {0: ("weight",), 1: BN, 3: ("weight",), 4: BN, 6: ("weight",), 7: FIXED})
    expected = {f"module.{one}.{key}" for one in ("base_encoder", "momentum_encoder") for key in encoder}
    expected |= names("module.predictor", {0: ("weight",), 1: BN, 3: ("weight",), 4: FIXED})
    assert set(layout(EncoderSpec(name=f"vit_{size}", head="projector3", dim=256), kind="mlp_bn")) == expected


def test_the_convolutional_stem_has_its_layers_at_the_official_places() -> None:
    made = layout(EncoderSpec(name="vit_conv_small", head="projector3", dim=256), kind="mlp_bn")
    stem = {key.split(".")[4] for key in made if key.startswith("module.base_encoder.patch_embed.proj.")}
    assert stem == {"0", "1", "3", "4", "6", "7", "9", "10", "12"}
