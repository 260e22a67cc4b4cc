"""The source of each setting of the rows of the paper's tables 2 to 6. P is MoCo v1, D Detectron2's configuration.

A key is the dotted name of a setting, or a prefix of it; the longest match counts. Entries of a schedule come before
those of a task, and these before the common ones.
"""

from collections.abc import Mapping

from moco.transfer.recipe import TransferRecipe

ANY = "this project's choice: any number"
THREADS = "this project's choice: torch's default when a run starts"
CONFIG = "Detectron2's configuration of this task"
DEFAULT = "Detectron2's default"
AUTHORS = "the authors' detection/configs"
NumberSources = Mapping[str, str]

COMMON: NumberSources = {
    "seed": ANY,
    "threads": THREADS,
    "encoder.name": "MoCo v1, Sec. 4: ResNet-50; a run has the encoder of --init",
    "mean": "ImageNet's; a run has those of the weights of --init",
    "std": "ImageNet's; a run has those of the weights of --init",
    "bn": "MoCo v1, Sec. 4.2: BN is tuned and synchronized",
    "optim.momentum": DEFAULT,
    "optim.factor": f"{DEFAULT}: x 0.1 at each step",
    "optim.weight_decay": f"{AUTHORS}; none on norm layers",
    "optim.warmup_from": DEFAULT,
    "optim.batch_size": "MoCo v1, appendix: 16",
    "precise_bn": f"{AUTHORS}: TEST.PRECISE_BN",
    "sizes.longest": f"{DEFAULT}: at most 1333",
    "sizes.flip": DEFAULT,
    "detector": CONFIG,
}
BY_SCHEDULE: Mapping[str, NumberSources] = {
    "24k": {
        "optim.lr": AUTHORS,
        "optim.iterations": "MoCo v1, Table 2: 24k iterations",
        "optim.at": f"{AUTHORS}: 18k and 22k",
        "optim.warmup": f"{AUTHORS}: 100",
        "sizes.shorter": "MoCo v1, appendix: 480 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
        "sizes.eval_shorter": "MoCo v1, appendix: 480 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
    },
    "9k": {
        "optim.lr": f"{AUTHORS}, for 24k iterations",
        "optim.iterations": "MoCo v1, Table 4: 9k iterations",
        "optim.at": "this project's choice: the same shares of the run as of 24k, as they are not published",
        "optim.warmup": f"{AUTHORS}: 100, for 24k iterations",
        "sizes.shorter": "MoCo v1, appendix: 480 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
        "sizes.eval_shorter": "MoCo v1, appendix: 480 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
    },
    "1x": {
        "optim.lr": CONFIG,
        "optim.iterations": "MoCo v1, Sec. 4.2: 1x; Detectron2: 90k iterations",
        "optim.at": f"{CONFIG}: 60k and 80k",
        "optim.warmup": f"{DEFAULT}: 1000",
        "sizes.shorter": "MoCo v1, appendix: 640 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
        "sizes.eval_shorter": "MoCo v1, appendix: 640 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
    },
    "2x": {
        "optim.lr": CONFIG,
        "optim.iterations": "MoCo v1, Sec. 4.2: 2x; Detectron2: 180k iterations",
        "optim.at": f"{CONFIG}: 120k and 160k",
        "optim.warmup": f"{DEFAULT}: 1000",
        "sizes.shorter": "MoCo v1, appendix: 640 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
        "sizes.eval_shorter": "MoCo v1, appendix: 640 to 800 in training, 800 in testing; steps of 32 as in Detectron2",
    },
    "s1x": {
        "optim.lr": "Detectron2's densepose_rcnn_R_50_FPN_s1x_legacy: 0.002",
        "optim.iterations": "MoCo v1, A.3: s1x; Detectron2: 130k iterations",
        "optim.at": f"{CONFIG}: 100k and 120k",
        "optim.warmup": f"{DEFAULT}: 1000",
        "sizes.shorter": f"{CONFIG}: 640 to 800 in training, 800 in testing",
        "sizes.eval_shorter": f"{CONFIG}: 640 to 800 in training, 800 in testing",
    },
    "30k": {"optim.lr": "MoCo v1, A.5: 0.003 on VOC", "crops.side": "MoCo v1, A.5: 513 on VOC"},
    "90k": {"optim.lr": "MoCo v1, A.5: 0.01 on Cityscapes", "crops.side": "MoCo v1, A.5: 769 on Cityscapes"},
}
CITYSCAPES = "Detectron2's Cityscapes/mask_rcnn_R_50_FPN.yaml, as the paper does not describe this row"
BY_TASK: Mapping[str, NumberSources] = {
    "detect": {"task": "MoCo v1, Sec. 4.2", "arch": "MoCo v1, Table 2, A.1"},
    "instance": {"task": "MoCo v1, Sec. 4.2", "arch": "MoCo v1, Table 5"},
    "keypoints": {"task": "MoCo v1, Table 6", "arch": "MoCo v1, A.2"},
    "densepose": {"task": "MoCo v1, Table 6", "arch": "MoCo v1, A.3"},
    "lvis": {
        "task": "MoCo v1, Table 6",
        "arch": "MoCo v1, A.4",
        "bn": "MoCo v1, A.4: tuned; the supervised baseline has frozen BN",
        "repeat": f"{CONFIG}: repeat factor sampling, t = 0.001",
    },
    "cityscapes": {"task": "MoCo v1, Table 6"}
    | dict.fromkeys(("arch", "optim", "sizes", "detector", "optim.weight_decay", "optim.batch_size"), CITYSCAPES),
    "segment": {
        "task": "MoCo v1, Table 6",
        "arch": "MoCo v1, A.5: FCN-16s",
        "channels": "MoCo v1, A.5: 256",
        "crops": "MoCo v1, A.5: ratios from 0.5 to 2, mirrored",
        "crops.flip": "MoCo v1, A.5: mirrored; the probability is this project's choice",
        "optim.iterations": "MoCo v1, A.5",
        "optim.at": "MoCo v1, A.5: at 70 % and 90 %",
        "optim.factor": "MoCo v1, A.5: x 0.1",
        "optim.weight_decay": "MoCo v1, A.5: 1e-4; none on norm layers, as in the detection tasks",
        "optim.batch_size": "MoCo v1, A.5: 16",
        "optim.momentum": "this project's choice: 0.9, as everywhere else in the paper",
        "optim.warmup": "this project's choice: none, as the paper names none",
        "optim.warmup_from": "without effect: there is no warm-up",
        "precise_bn": "this project's choice: as in the detection tasks",
    },
}


def source_of(setting: str, recipe: TransferRecipe, schedule: str) -> str:
    """The source of a setting of a row's recipe; empty if there is none."""
    for table in _tables(recipe.task, schedule):
        if fits := [key for key in table if f"{setting}.".startswith(f"{key}.")]:
            return table[max(fits, key=len)]
    return ""


def _tables(task: str, schedule: str) -> list[NumberSources]:
    of_task, of_schedule = BY_TASK[task], BY_SCHEDULE[schedule]
    return [of_task, COMMON] if task == "cityscapes" else [of_schedule, of_task, COMMON]
