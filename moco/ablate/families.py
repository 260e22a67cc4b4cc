"""The ablations as data: families of recipes, and the papers' results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moco.ablate.scales import Scale, at_scale
from moco.recipe import Recipe, RecipeError, unknown
from moco.schedule import Cosine

V1, V2, V3 = "arXiv:1911.05722", "arXiv:2003.04297", "arXiv:2104.02057"
Paper = Mapping[
    tuple[str, str], float | str
]  # (series, label) -> ImageNet linear top-1 [percent], or a word such as "fails"
MOCO, BANK, END_TO_END = "MoCo", "memory bank", "end-to-end"


@dataclass(frozen=True)
class Cell:
    """One recipe of a family."""

    label: str  # on the axis
    changes: dict[str, Any]  # to the family's base recipe
    series: str = ""  # name of its line in the plot

    @property
    def name(self) -> str:
        return f"{self.series}, {self.label}" if self.series else self.label


@dataclass(frozen=True)
class Family:
    """An ablation: recipes that differ in one or two settings."""

    name: str
    title: str
    base: Recipe
    cells: tuple[Cell, ...]
    axis: str  # name of the axis
    paper: Paper
    source: str  # of the paper's numbers
    place: Callable[[str], float] | None = float  # label -> position on the axis; None: in order
    log: bool = True  # logarithmic axis
    measures: tuple[str, ...] = ()  # further columns: names in moco.ablate.table.MEASURES
    remark: str = ""  # shown below the table

    def recipe(self, cell: Cell, *, seed: int = 0) -> Recipe:
        """The recipe of a cell. Raises RecipeError if its settings do not fit together."""
        return self.base.but(f"ablate-{self.name}", {**cell.changes, "seed": seed}, source=self.source)


def _keys(size: int) -> dict[str, Any]:
    return {"method.size": size}


def _bank(size: int) -> dict[str, Any]:
    return {
        "method.dictionary": "bank", "method.key_encoder": "none", "method.size": size, "method.bn": "split",
    }  # fmt: skip


def _end_to_end(base: Recipe, batch: int) -> dict[str, Any]:
    return {
        "method.dictionary": "batch", "method.key_encoder": "shared", "method.size": None,
        "optim.batch_size": batch, "optim.lr": base.optim.lr.scaled(batch / base.optim.batch_size),
    }  # fmt: skip


QUEUE_CURVE = {"256": 54.7, "512": 56.4, "1024": 57.5, "4096": 59.0, "16384": 60.4, "65536": 60.6}
BANK_CURVE = {"256": 50.0, "512": 52.0, "1024": 54.1, "4096": 56.5, "16384": 57.8, "65536": 58.0}
BATCH_CURVE = {"256": 54.9, "512": 56.4, "1024": 57.3}
FIGURE_3 = f"{V1}, Fig. 3: only 59.0, 60.6 and 58.0 are printed, the others were read from the figure"


def mechanism(scale: Scale) -> Family:
    base = scale.moco
    cells = [Cell(str(size), _keys(size), MOCO) for size in scale.keys]
    cells += [Cell(str(size), _bank(size), BANK) for size in scale.keys]
    cells += [Cell(str(batch), _end_to_end(base, batch), END_TO_END) for batch in scale.batches]
    cells += [Cell("4096", _bank(4096) | {"method.loss": "nce"}, f"{BANK}, NCE")]
    curves = {MOCO: QUEUE_CURVE, BANK: BANK_CURVE, END_TO_END: BATCH_CURVE, f"{BANK}, NCE": {"4096": 54.3}}
    return Family(
        "mechanism", "Three mechanisms over the number of keys", base, tuple(cells), "K, keys in the dictionary",
        {(series, at): y for series, curve in curves.items() for at, y in curve.items()},
        f"{FIGURE_3}; NCE: footnote 2", measures=("consistency", "agreement", "stored", "remade"),
        remark="Every run sees each image equally often. End-to-end has as many keys as its mini-batch has images (one "
        "of them is the positive), so with more keys it makes fewer steps, at a proportionally larger learning rate. "
        "A memory bank uses one view of each image, and its positive is the image's own key from earlier epochs: an "
        "average of at most {epochs} embeddings here, of 200 in the paper.",
    )  # fmt: skip


def momentum(scale: Scale) -> Family:
    return Family(
        "momentum", "The momentum m of the key encoder", scale.moco.but(None, _keys(scale.momentum_keys)),
        tuple(Cell(m, {"method.momentum": float(m)}) for m in ("0", "0.9", "0.99", "0.999", "0.9999")), "m",
        {("", "0"): "fails", ("", "0.9"): 55.2, ("", "0.99"): 57.8, ("", "0.999"): 59.0, ("", "0.9999"): 58.9},
        f"{V1}, Sec. 4.1 (K = 4096)", place=_memory, measures=("memory", "lag", "consistency", "stored", "remade"),
        remark="f_k averages f_q over about 1/(1-m) steps. A run has {steps:,} of them here, 1,000,000 in the paper: "
        "an m whose 1/(1-m) is near the length of the run, or beyond, leaves f_k near its random initialization.",
    )  # fmt: skip


def _memory(m: str) -> float:
    """The number of steps that f_k averages over."""
    return round(1 / (1 - float(m)), 6)


def queue(scale: Scale) -> Family:
    return Family(
        "queue", "The length of the queue", scale.moco,
        tuple(Cell(str(size), _keys(size)) for size in sorted({*scale.keys, *scale.more_keys})), "K, keys in the queue",
        {("", at): y for at, y in QUEUE_CURVE.items()}, FIGURE_3, measures=("age", "consistency", "stored", "remade"),
        remark="The oldest key is K / N mini-batches old: {oldest} at most here, of {steps:,} steps; 256 in the paper, "
        "of 1,000,000.",
    )  # fmt: skip


def shufflebn(scale: Scale) -> Family:
    groups = scale.moco.groups
    return Family(
        "shufflebn", "Shuffling BN", scale.moco,
        (
            Cell(f"{groups} groups, shuffled", {}),
            Cell(f"{groups} groups, not shuffled", {"method.bn": "split"}),
            Cell("one group", {"method.bn": "plain"}),
        ),
        "", {}, f"{V1}, Sec. 3.3 and appendix: without shuffling, contrastive accuracy exceeds 99.9 % and kNN accuracy "
        "drops; the authors' CIFAR notebook reports 4 points after 800 epochs", place=None, log=False,
        measures=("pretext", "own", "apart"),
        remark="A cheating encoder finds its own keys in training, but not if the keys' BN statistics come from other "
        "images: the two columns on the right measure both for the trained network, on the same views.",
    )  # fmt: skip


TEMPERATURES = ("0.07", "0.1", "0.2", "0.3", "0.4", "0.5")
BY_TEMPERATURE = {"linear": (60.6, 60.7, 59.0, 58.2, 57.2, 56.4), "mlp": (62.9, 64.9, 66.2, 65.7, 65.0, 64.3)}


def temperature(scale: Scale) -> Family:
    return Family(
        "temperature", "The temperature, with a linear head and an MLP", scale.moco,
        tuple(
            Cell(tau, {"method.temperature": float(tau), "encoder.head": head}, f"{head} head")
            for head in BY_TEMPERATURE for tau in TEMPERATURES
        ),
        "temperature",
        {(f"{head} head", tau): y for head, row in BY_TEMPERATURE.items()
         for tau, y in zip(TEMPERATURES, row, strict=True)},
        f"{V2}, Sec. 3", measures=("pretext",),
    )  # fmt: skip


def head(scale: Scale) -> Family:
    return Family(
        "head", "A linear head or an MLP", scale.moco,
        tuple(
            Cell(f"{name} head, temperature {tau}", {"encoder.head": name, "method.temperature": tau})
            for tau in (0.1, 0.2) for name in ("linear", "mlp")
        ), "",
        {("", "linear head, temperature 0.1"): 60.7, ("", "mlp head, temperature 0.1"): 64.9,
         ("", "linear head, temperature 0.2"): 59.0, ("", "mlp head, temperature 0.2"): 66.2},
        f"{V2}, Sec. 3", place=None, log=False,
    )  # fmt: skip


def width(scale: Scale) -> Family:
    return Family(
        "width", "The width of the network", scale.moco,
        tuple(
            Cell(label, {"encoder.width": value})
            for label, value in zip(("1", "2", "4"), scale.widths, strict=True)
        ),
        "width of every layer, relative", {("", "1"): 60.6, ("", "2"): 65.4, ("", "4"): 68.6},
        f"{V1}, Table 1 (ResNet-50)", remark="A wider network has a longer feature, which alone helps a linear "
        "classifier: the random encoder of each width is its baseline.",
    )  # fmt: skip


def v2(scale: Scale) -> Family:
    rate, (plain, strong) = scale.steps, scale.views
    base = scale.moco.but(
        None, {"encoder.head": "linear", "method.temperature": 0.07, "optim.lr": rate, "data.views": (plain, plain)}
    )
    mlp = {"encoder.head": "mlp", "method.temperature": 0.2}
    aug, cos = {"data.views": (strong, strong)}, {"optim.lr": Cosine(rate.value, whole_epochs=True)}
    longer = f"and {scale.longer} epochs"
    return Family(
        "v2", "From v1 to v2", base,
        (
            Cell("baseline", {}), Cell("MLP", mlp), Cell("aug+", aug), Cell("MLP, aug+", mlp | aug),
            Cell("MLP, aug+, cos", mlp | aug | cos), Cell(longer, mlp | aug | cos | {"optim.epochs": scale.longer}),
        ),
        "", {("", "baseline"): 60.6, ("", "MLP"): 66.2, ("", "aug+"): 63.4, ("", "MLP, aug+"): 67.3,
             ("", "MLP, aug+, cos"): 67.5} | ({("", longer): 71.1} if scale.longer == 800 else {}),
        f"{V2}, Table 1; 800 epochs (71.1): Table 2", place=None, log=False,
    )  # fmt: skip


LEARNED, FROZEN = "learned projection", "frozen projection"


def v3_patch(scale: Scale) -> Family:
    rates = scale.patch_rates
    cells = [
        Cell(f"{rate:g}", {"encoder.freeze_patch": frozen, "optim.lr": _v3_rate(scale, rate)}, series)
        for series, frozen in ((LEARNED, False), (FROZEN, True)) for rate in rates
    ]  # fmt: skip
    curves = {LEARNED: (70.4, 72.2, 71.7), FROZEN: (70.8, 72.8, 73.4)}  # frozen: + 0.4, 0.6, 1.7
    return Family(
        "v3-patch", "The patch projection of a ViT, trained or left random",
        scale.v3.but(None, {"optim.epochs": scale.patch_epochs}), tuple(cells), "base learning rate (for N = 256)",
        {(series, f"{rate:g}"): y for series, curve in curves.items()
         for rate, y in zip((0.5e-4, 1e-4, 1.5e-4), curve, strict=True)},
        f"{V3}, Sec. 4.2 (ViT-B, 100 epochs; 71.7 was read from its figure)",
    )  # fmt: skip


def _v3_rate(scale: Scale, rate: float, batch: int | None = None) -> Cosine:
    warmup = getattr(scale.v3.optim.lr, "warmup", 0.0)
    return Cosine(rate * (batch or scale.v3.optim.batch_size) / 256, warmup=warmup)


def v3_predictor(scale: Scale) -> Family:
    return _v3_few(
        scale, "v3-predictor", "MoCo v3's predictor",
        (("with predictor", {}, 76.5), ("without", {"method.predictor": "none"}, 75.5)),
    )  # fmt: skip


def v3_position(scale: Scale) -> Family:
    return _v3_few(
        scale, "v3-position", "The positions of a ViT's patches",
        (
            ("sin-cos, fixed", {}, 76.5), ("learned", {"encoder.position": "learned"}, 76.1),
            ("none", {"encoder.position": "none"}, 74.9),
        ),
    )  # fmt: skip


def v3_heads(scale: Scale) -> Family:
    return _v3_few(
        scale, "v3-heads", "BN in MoCo v3's heads",
        (("with BN", {}, 76.5), ("without", {"encoder.head_bn": False}, 74.4)),
        "The paper's number without BN is for a mini-batch of 2048, the other one for 4096.",
    )  # fmt: skip


def _v3_few(
    scale: Scale, name: str, title: str, cells: tuple[tuple[str, dict[str, Any], float], ...], remark: str = ""
) -> Family:
    return Family(
        name, title, scale.v3, tuple(Cell(label, changes) for label, changes, _ in cells), "",
        {("", label): top1 for label, _, top1 in cells}, f"{V3}, Sec. 5 (ViT-B, 300 epochs)",
        place=None, log=False, measures=("pretext",), remark=remark,
    )  # fmt: skip


def v3_batch(scale: Scale) -> Family:
    rate = scale.patch_rates[1]
    cells = [
        Cell(str(n), {"optim.batch_size": n, "optim.lr": _v3_rate(scale, rate, n)}) for n in scale.v3_batches
    ]  # fmt: skip
    return Family(
        "v3-batch", "MoCo v3's mini-batch",
        scale.v3.but(None, {"encoder.freeze_patch": False, "optim.epochs": scale.patch_epochs}), tuple(cells),
        "N, images in a mini-batch",
        {("", "1024"): 71.5, ("", "2048"): 72.6, ("", "4096"): 72.2, ("", "6144"): 69.7},
        f"{V3}, Sec. 4.1 (ViT-B, 100 epochs, base learning rate 1e-4, learned patch projection; 6k is 6144 here)",
        remark="The patch projection is learned here, as in the paper's comparison. The learning rate grows with the "
        "mini-batch, and the number of steps falls.",
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Scale], Family]] = {
    "mechanism": mechanism, "momentum": momentum, "queue": queue, "shufflebn": shufflebn, "temperature": temperature,
    "head": head, "width": width, "v2": v2, "v3-patch": v3_patch, "v3-predictor": v3_predictor,
    "v3-position": v3_position, "v3-heads": v3_heads, "v3-batch": v3_batch,
}  # fmt: skip


def family(name: str, *, scale: str) -> Family:
    """The family called `name` at a scale of `moco.ablate.scales`. Raises RecipeError with the nearest names."""
    if name not in FAMILIES:
        raise RecipeError(unknown("ablation", name, list(FAMILIES)))
    return FAMILIES[name](at_scale(scale))
