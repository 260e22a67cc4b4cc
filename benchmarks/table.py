"""`python -m benchmarks.table`: write the tables of speed from the files in results/, between two marks in each page.

docs/speed.md has every row, and those of a GPU; README.md has the few of `IN_README`.
"""

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import to_markdown
from benchmarks.run import RESULTS

ROOT = Path(__file__).parent.parent
README, SPEED = ROOT / "README.md", ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- speed: made by benchmarks.table -->", "<!-- speed: end -->"
ON_GPU = RESULTS.parent / "gpu.json"  # from `python -m benchmarks.gpu`
GPU_BEGIN, GPU_END = "<!-- gpu: made by benchmarks.table -->", "<!-- gpu: end -->"
PEERS = ("lightly", "torchvision-v2", "albumentations", "albumentations-area", "pillow-simd", "nvidia-dali")
VIEWS = {"v1": "MoCo v1", "v2": "MoCo v2", "v3": "MoCo v3, ViT"}
WAYS = {"fused": "to float32 views", "hand-over": "to uint8 crops for a device"}
THREADS = {"1-thread": "1 thread", "2-threads": "2 threads", "2-threads/wall": "2 threads, wall time"}
TITLES = {  # name of a result -> what the tables call it, in their order
    **{f"input/{view}/{way}/{threads}": f"JPEG {says}, {name}, {many}"
       for threads, many in THREADS.items() for way, says in WAYS.items() for view, name in VIEWS.items()},
    **{f"input/32/{threads}": f"views of 32 x 32 in memory, {many}" for threads, many in THREADS.items()},
    **{f"input/v2/peers/{peer}": f"JPEG to float32 views, MoCo v2, beside {peer}" for peer in PEERS},
    "step/demo": "step, the demo's network, batch 128, 2 BN groups",
    "step/resnet18-32": "step, ResNet-18 at 32 x 32, batch 128, 4 BN groups",
    "step/resnet18-32/lightly-tutorial": "step, ResNet-18 at 32 x 32, beside lightly's tutorial",
    "step/resnet18-32/lightly-example": "step, ResNet-18 at 32 x 32, beside lightly's example",
    "step/resnet50-224": "step, ResNet-50 at 224, batch 16",
    "step/vit-small-224": "step, ViT-S/16 at 224, batch 4",
    "loss/K=4096": "loss, K = 4,096", "loss/K=65536": "loss, K = 65,536", "loss/K=1048576": "loss, K = 1,048,576",
    "ema/resnet50": "momentum update, ResNet-50", "optimizer/sgd-resnet50": "SGD, ResNet-50",
    "optimizer/adamw-vit-small": "AdamW, ViT-S", "optimizer/lars-resnet50": "LARS, ResNet-50",
    "ranks/32/shuffle": "shuffle on 2 ranks, 32 x 32", "ranks/224/shuffle": "shuffle on 2 ranks, 224 x 224",
    "ranks/32/gather": "keys gathered on 2 ranks",
    "knn/20000": "kNN, 20,000 images", "knn/20000/scikit-learn": "kNN, 20,000 images, beside scikit-learn",
    "embed/demo": "embedding the demo's test pictures", "embed/resnet18-224": "embedding photos, ResNet-18",
    "detector/detect-fpn": "step of Faster R-CNN R50-FPN, an eighth of the width, 2 images of 320 x 384",
    "detector/instance-fpn": "step of Mask R-CNN R50-FPN, the same",
    "detector/detect-c4": "step of Faster R-CNN R50-C4, the same",
    "checkpoint/resnet18": "checkpoint, ResNet-18: training is held", "checkpoint/resnet18/wall": "the same, wall time",
    "checkpoint/resnet18/work": "checkpoint, ResNet-18: all work",
    "safety/demo": "log, checks and checkpoints of the demo",
    "throughput/demo": "the demo end to end", "throughput/demo/wall": "the demo end to end, wall time",
    "throughput/photos-224": "224-pixel JPEGs end to end",
    "throughput/photos-224/wall": "224-pixel JPEGs end to end, wall time",
    **{f"prefetch/{depth}": f"224-pixel JPEGs end to end, {depth} mini-batches prefetched" for depth in (1, 4, 8)},
    "start/help": "moco --help",
    "start/100000-files/cold": "command to end of the first step, 100,000 files",
    "start/100000-files/cold/wall": "command to end of the first step, 100,000 files, wall time",
    "start/100000-files/warm": "command to end of the first step, 100,000 files listed before",
    "start/100000-files/warm/wall": "command to end of the first step, 100,000 files listed before, wall time",
    "memory/input/2-threads": "memory of the input, 2 threads", "memory/input/a-worker": "memory of one more thread",
}  # fmt: skip
IN_README = (
    "input/v2/fused/1-thread", "input/v2/hand-over/2-threads/wall", "step/resnet18-32", "step/resnet50-224",
    "loss/K=65536", "start/100000-files/cold/wall",
)  # fmt: skip


def main() -> None:
    results = stored()
    README.write_text(put(README.read_text(), table(results, only=IN_README)))
    page = put(SPEED.read_text(), table(results))
    SPEED.write_text(put(page, to_markdown(json.loads(ON_GPU.read_text())).rstrip(), begin=GPU_BEGIN, end=GPU_END))


def stored() -> list[list[dict[str, Any]]]:
    """The results of each kind of processor, that with the most rows first."""
    found = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return sorted(found, key=len, reverse=True)


def table(results: Sequence[Sequence[dict[str, Any]]], *, only: Collection[str] = TITLES) -> str:
    """The machines, and a table of the results that have a title: the ratio on each kind of processor side by side.

    The other columns are those of the first kind that has the row.
    """
    by_name = [{one["name"]: one for one in some if one["name"] in only} for some in results]
    shown = [(title, [some.get(name) for some in by_name]) for name, title in TITLES.items()]
    shown = [(title, row) for title, row in shown if any(row)]
    machines = sorted({one["machine"] for _, row in shown for one in row if one})
    kinds = [next(iter(some.values()))["machine"].split(",")[0] for some in by_name if some]
    ratios = [f"ours / reference (spread){f', {kind}' if len(kinds) > 1 else ''}" for kind in kinds]
    head = ["what", *ratios, "speed-up", "lower bound / ours", "memory [MB]: ours, reference", "reference"]
    lines = [_line(title, [one for one, some in zip(row, by_name, strict=True) if some]) for title, row in shown]
    return "\n".join([f"Measured on {'; '.join(machines)}.", "", _cells(head), "|" + "---|" * len(head), *lines])


def _line(title: str, row: Sequence[dict[str, Any] | None]) -> str:
    """`row`: the result on each kind of processor, None where it was not measured."""
    one = next(filter(None, row))
    memory = [f"{one[side]:,.0f}" if one[side] is not None else "" for side in ("memory_mb", "reference_memory_mb")]
    return _cells([
        title, *(f"{each['ratio']:.2f} ({each['low']:.2f}-{each['high']:.2f})" if each else "" for each in row),
        f"{one['speedup']:.1f} x", "" if one["floor_share"] is None else f"{one['floor_share']:.0%}",
        ", ".join(memory) if any(memory) else "", one["against"],
    ])  # fmt: skip


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def put(text: str, made: str, *, begin: str = BEGIN, end: str = END) -> str:
    """`text` with `made` between the marks. Raises ValueError unless each mark is there once, in order."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"expected the lines '{begin}' and, after it, '{end}' once each: put them where the table goes"
        )
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    return f"{before}\n{made}\n{after}"


if __name__ == "__main__":
    sys.exit(main())
